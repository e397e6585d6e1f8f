"""What a study is made of, as its first worker finds it: all that must be equal for a replay to come to the same."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from workers.data import RawTable
from workers.planning.plan import Plan

_PACKAGES = ("regsearch", "torch", "optuna", "numpy", "scikit-learn", "pandas")


def made_of(table: RawTable, device: torch.device, plan: Plan) -> dict[str, Any]:
    """Hash of the data, versions, device and plan, as JSON."""
    return {
        "data_hash": data_hash(table),
        "rows": table.rows,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "plan": asdict(plan),
    }


def data_hash(table: RawTable) -> str:
    """SHA-256 of all rows in their order: features (by their row hashes), targets and classes."""
    digest = hashlib.sha256(repr((table.task, table.labels, list(map(str, table.features.columns)))).encode())
    digest.update(np.ascontiguousarray(table.row_hashes).tobytes())
    digest.update(np.ascontiguousarray(table.target).tobytes())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""A study's provenance, as its first worker finds it: all that must be equal for a replay to reproduce the study."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from workers.data import RawTable
from workers.planning.plan import Plan

_PACKAGES = ("regsearch", "torch", "optuna", "numpy", "scikit-learn", "pandas")


def made_of(table: RawTable, device: torch.device, plan: Plan) -> dict[str, Any]:
    """Hash of the data, versions, device and plan, as JSON."""
    return {
        "data_hash": table.data_hash(),
        "rows": table.rows,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "plan": asdict(plan),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

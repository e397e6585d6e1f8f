"""The machine that a benchmark runs on: processor, usable cores, graphics card, versions. Loads nothing heavy for it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from workers.planning.cores import usable_cores

PACKAGES = ("torch", "optuna", "sqlalchemy", "fastapi", "numpy", "scikit-learn", "ray")


def machine() -> dict[str, Any]:
    """Hardware and versions, as they are written into every result file."""
    cores = os.cpu_count()
    return {
        "processor": _cpuinfo("model name") or platform.machine(),
        "vector_instructions": _vector_instructions(),
        "cores": cores,
        "usable_cores": usable_cores(),
        **_graphics_cards(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def commit(checkout: Path) -> str | None:
    """The commit of a checkout, with ``-dirty`` where files differ from it; None where git can't tell."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.split("\t")[0].strip() == field), "")


def _vector_instructions() -> str:
    """The widest that the processor has and PyTorch has kernels for; ATEN_CPU_CAPABILITY may hold it to less."""
    flags = _cpuinfo("flags").split()
    widest = next((name for name, flag in (("AVX-512", "avx512f"), ("AVX2", "avx2")) if flag in flags), "none")
    held = os.environ.get("ATEN_CPU_CAPABILITY")
    return f"{widest}, ATEN_CPU_CAPABILITY={held}" if held else widest


def _graphics_cards() -> dict[str, list[str]]:
    """Their names as NVIDIA's driver tells them, where there are any."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"graphics_cards": found.stdout.strip().splitlines()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""The cores and the memory that this process may use: affinity and control groups set limits of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil


def usable_cores() -> float:
    """Cores that this process may use: those of its affinity, or the quota of a control group, which need not be whole."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(affinity), *quotas(Path("/sys/fs/cgroup"), _own_groups())])


def quotas(root: Path, groups: str) -> Iterator[float]:
    """Quotas in cores of all control groups that ``groups`` (`/proc/self/cgroup`) lies in, of version 2 and 1."""
    for folder in _folders(root, groups, "cpu"):
        yield from _quota(folder)


def usable_memory() -> int:
    """Bytes of memory that this process may use: those of the machine, or of the narrowest control group."""
    return min([psutil.virtual_memory().total, *memory_limits(Path("/sys/fs/cgroup"), _own_groups())])


def memory_limits(root: Path, groups: str) -> Iterator[int]:
    """Limits in bytes of all control groups that ``groups`` (`/proc/self/cgroup`) lies in, of version 2 and 1."""
    for folder in _folders(root, groups, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = folder / name
            if limit.exists() and (text := limit.read_text().strip()) != "max":
                yield int(text)


def _own_groups() -> str:
    groups = Path("/proc/self/cgroup")
    return groups.read_text() if groups.exists() else ""


def _folders(root: Path, groups: str, controller: str) -> Iterator[Path]:
    """The folders of a controller's groups, from each group to the root."""
    for line in groups.splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        group = base / name.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(base))


def _quota(folder: Path) -> Iterator[float]:
    """The quota of one control group, if it has any."""
    limit, old, period = folder / "cpu.max", folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if limit.exists():
        words = limit.read_text().split()
    elif old.exists() and period.exists():
        words = [old.read_text().strip(), period.read_text().strip()]
    else:
        return
    if words[0] not in ("max", "-1"):
        yield int(words[0]) / int(words[1])

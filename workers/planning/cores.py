"""The cores that this process may use: under affinity and quotas, which the count of processors does not show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores() -> float:
    """Cores that this process may use: those of its affinity, or the quota of a control group, which need not be whole."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    groups = Path("/proc/self/cgroup")
    limits = quotas(Path("/sys/fs/cgroup"), groups.read_text() if groups.exists() else "")
    return min([float(affinity), *limits])


def quotas(root: Path, groups: str) -> Iterator[float]:
    """Quotas in cores of all control groups that ``groups`` (`/proc/self/cgroup`) lies in, of version 2 and 1."""
    for line in groups.splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        group = base / name.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(base):
                yield from _quota(folder)


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

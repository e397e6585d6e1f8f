"""Fifty blows of many kinds at random, on both databases: nothing lost, nothing doubled, the budget exact."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.crash import Cluster, Disk, Postgres, broken_invariants, storm

SPEC: dict[str, Any] = {
    "data": {"dataset": "wine"},
    "model": {"widths": [16]},
    "space": {"preset": "default", "normalization": "none"},
    "validation": {"method": "holdout"},
    "pruner": {"name": "successive_halving", "min_epochs": 5},
    "budget": {"trials": 24, "epochs": 30, "finalists": 1, "seeds": 2, "max_retries": 50, "max_lost_workers": 500},
}
BLOWS = 25
"""Of each database here; more by hand, with tests/benchmarks/crash.py."""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nothing_is_lost_in_a_storm(database: str) -> None:
    disk = Disk()
    home = disk.place / "home"
    home.mkdir()
    postgres = Postgres(disk.place) if database == "postgresql" else None
    url = postgres.url if postgres else f"sqlite:///{home / 'regsearch.db'}"
    cluster = Cluster(home, url, workers=2, seed=1, postgres=postgres, disk=disk)
    try:
        storm(cluster, [SPEC, SPEC | {"seed": 1}], kills=BLOWS, pause=(0.2, 0.6))
    finally:
        cluster.stop()
    assert broken_invariants(url, home) == []
    assert sum(cluster.kills.values()) == BLOWS
    if postgres:
        postgres.stop()
    disk.close()

"""Kills and freezes at random on both databases: nothing lost, nothing doubled, the budget exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.crash import Cluster, Postgres, broken_invariants, storm

SPEC: dict[str, Any] = {
    "data": {"dataset": "wine"},
    "model": {"widths": [16]},
    "space": {"preset": "default", "normalization": "none"},
    "validation": {"method": "holdout"},
    "pruner": {"name": "successive_halving", "min_epochs": 5},
    "budget": {"trials": 40, "epochs": 40, "finalists": 1, "seeds": 2, "max_retries": 50, "max_lost_workers": 500},
}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nothing_is_lost_in_a_storm(tmp_path: Path, database: str) -> None:
    postgres = Postgres() if database == "postgresql" else None
    url = postgres.url if postgres else f"sqlite:///{tmp_path / 'regsearch.db'}"
    cluster = Cluster(tmp_path, url, workers=2, seed=1, postgres=postgres)
    try:
        storm(cluster, [SPEC, SPEC | {"seed": 1}], kills=8, pause=(0.5, 1.5))
    finally:
        cluster.stop()
    assert broken_invariants(url) == []
    assert sum(cluster.kills.values()) == 8
    if postgres:
        postgres.stop()

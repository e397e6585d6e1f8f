"""The long crash test: `python tests/benchmarks/crash.py [--kills 100]`, on SQLite and on PostgreSQL."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.acceptance.crash import Cluster, Postgres, broken_invariants, storm
from tests.acceptance.test_crash import SPEC
from tests.benchmarks.report import save


def weather(database: str, kills: int, workers: int) -> dict[str, Any]:
    """One storm on one database."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        postgres = Postgres() if database == "postgresql" else None
        url = postgres.url if postgres else f"sqlite:///{home / 'regsearch.db'}"
        cluster = Cluster(home, url, workers=workers, seed=kills, postgres=postgres)
        try:
            storm(cluster, [SPEC | {"seed": seed} for seed in range(3)], kills=kills, pause=(0.3, 1.2))
            studies = cluster.client.get("/v1/studies", limit=500)["studies"]
        finally:
            cluster.stop()
        broken = broken_invariants(url)
        if postgres:
            postgres.stop()
    return {
        "kills": dict(cluster.kills),
        "workers": workers,
        "studies": len(studies),
        "trials": sum(study["trials"]["finished"] for study in studies),
        "broken_invariants": broken,
        "seconds": round(time.monotonic() - start),
    }


def main() -> None:
    """Both databases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=3)
    arguments = parser.parse_args()
    figures = {name: weather(name, arguments.kills, arguments.workers) for name in ("sqlite", "postgresql")}
    print(figures, save("crash", figures))  # noqa: T201


if __name__ == "__main__":
    main()

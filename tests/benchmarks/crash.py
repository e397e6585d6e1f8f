"""The long crash test: processes killed and frozen at random while studies run, then the invariants of the database.

    python -m tests.benchmarks.crash [--kills 100] [--workers 3] [--without postgresql]

On SQLite and on PostgreSQL, each a round of its own. The short form is `tests/acceptance/test_crash.py`.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.rounds import Options, Rounds


def weather(database: str, kills: int, workers: int) -> dict[str, Any]:
    """One storm on one database."""
    from tests.acceptance.crash import Cluster, Postgres, broken_invariants, storm  # noqa: PLC0415  # need PostgreSQL
    from tests.acceptance.test_crash import SPEC  # noqa: PLC0415

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
    """All databases."""
    options = Options("crash", __doc__, quick={"kills": 4, "workers": 1}, optional=["postgresql"])
    options.add_argument("--kills", type=int, default=100, help="blows on each database")
    options.add_argument("--workers", type=int, default=3, help="worker processes")
    given = options.given()
    rounds = Rounds("crash", given)
    names = [name for name in ("sqlite", "postgresql") if name not in given.without]
    rounds.conclude({name: rounds.once(name, partial(weather, name, given.kills, given.workers)) for name in names})


if __name__ == "__main__":
    main()

"""The long crash test: harm of many kinds at random while studies run, then the invariants of the database.

    python -m tests.benchmarks.crash [--kills 1000] [--workers 2] [--without postgresql]

On SQLite and on PostgreSQL, in rounds of 100 blows, each with a database of its own. Only root can fill a disk. The short
form is `tests/acceptance/test_crash.py`.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

from tests.benchmarks.rounds import Options, Rounds

BLOWS_PER_ROUND = 100


def weather(database: str, seed: int, blows: int, workers: int) -> dict[str, Any]:
    """One storm on one database."""
    from tests.acceptance.crash import Cluster, Disk, Postgres, broken_invariants, storm  # noqa: PLC0415  # need PostgreSQL
    from tests.acceptance.test_crash import SPEC  # noqa: PLC0415

    start = time.monotonic()
    disk = Disk()
    home = disk.place / "home"
    home.mkdir()
    postgres = Postgres(disk.place) if database == "postgresql" else None
    try:
        url = postgres.url if postgres else f"sqlite:///{home / 'regsearch.db'}"
        cluster = Cluster(home, url, workers=workers, seed=seed, postgres=postgres, disk=disk)
        try:
            storm(cluster, [SPEC | {"seed": 3 * seed + each} for each in range(3)], kills=blows, pause=(0.3, 1.2))
            studies = cluster.client.get("/v1/studies", limit=500)["studies"]
        finally:
            cluster.stop()
        broken = broken_invariants(url, home)
    finally:
        if postgres:
            postgres.stop()
        disk.close()
    return {
        "kills": dict(cluster.kills),
        "workers": workers,
        "studies": len(studies),
        "failed": [study["reason"] for study in studies if study["state"] != "finished"],
        "trials": sum(study["trials"]["finished"] for study in studies),
        "broken_invariants": broken,
        "seconds": round(time.monotonic() - start),
    }


def main() -> None:
    """All databases, in rounds of `BLOWS_PER_ROUND`."""
    options = Options("crash", __doc__, quick={"kills": 4, "workers": 1}, optional=["postgresql"])
    options.add_argument("--kills", type=int, default=1000, help="blows on each database")
    options.add_argument("--kills-postgresql", type=int, default=None, help="on PostgreSQL, if not as many")
    options.add_argument("--workers", type=int, default=2, help="worker processes")
    given = options.given()
    rounds = Rounds("crash", given, count="kills_postgresql")
    figures = {}
    for name in (name for name in ("sqlite", "postgresql") if name not in given.without):
        found = []
        kills = given.kills if name == "sqlite" or given.kills_postgresql is None else given.kills_postgresql
        for number in range(-(-kills // BLOWS_PER_ROUND)):
            blows = min(BLOWS_PER_ROUND, kills - number * BLOWS_PER_ROUND)
            found.append(rounds.once(f"{name} {number}", partial(weather, name, number, blows, given.workers)))
        figures[name] = {
            "blows": dict(sum((Counter(each["kills"]) for each in found), Counter())),
            "studies": sum(each["studies"] for each in found),
            "trials": sum(each["trials"] for each in found),
            "failed": [reason for each in found for reason in each["failed"]],
            "broken_invariants": [broken for each in found for broken in each["broken_invariants"]],
        }
    rounds.conclude(figures)


if __name__ == "__main__":
    main()

"""Twenty studies on a Ray cluster of three nodes, of which one is lost every 20 s: from no worker to the most and back.

    python -m tests.benchmarks.ray_nodes [--studies 20] [--nodes 3] [--every 20] [--trials 24] [--epochs 40]

The nodes are real ones of one machine (`ray.cluster_utils.Cluster`); a lost one is killed with everything that runs on it,
and a new one joins at once, as from an autoscaler. The studies are on PostgreSQL. Afterwards the invariants of the database
are checked: every study finished, every budget exact, no trial lost or doubled.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from service.cli.supervisor import free_port
from service.client.connection import HttpClient
from tests.benchmarks.rounds import ROOT, Options, Rounds, require
from tests.ray_cluster import RayNodes

LEASE_SECONDS = 5.0


def study(seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One that takes a worker some seconds."""
    return {
        "data": {"dataset": "digits"},
        "model": {"widths": [32]},
        "space": {"preset": "default", "normalization": "none"},
        "validation": {"method": "holdout"},
        "budget": {"trials": given.trials, "epochs": given.epochs, "finalists": 2, "seeds": 2},
        "seed": seed,
    }


def run(given: argparse.Namespace) -> dict[str, Any]:
    """All of it once."""
    from tests.acceptance.crash import Postgres, broken_invariants  # noqa: PLC0415  # need PostgreSQL

    chooser, postgres = random.Random(0), Postgres()
    home = Path(tempfile.mkdtemp(prefix="regsearch-ray-"))
    environment = os.environ | {
        "REGSEARCH_HOME": str(home),
        "REGSEARCH_CACHE": str(home / "cache"),
        "REGSEARCH_DB_URL": postgres.url,
        "REGSEARCH_PORT": str(free_port()),
        "REGSEARCH_LEASE_SECONDS": str(LEASE_SECONDS),
    }
    nodes = RayNodes(given.nodes, cpus=1)
    with (home / "log").open("ab") as log:

        def start(*words: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-m", *words], env=environment, stdout=log, stderr=log, cwd=ROOT)

        api = start("service.cli", "serve")
        client = HttpClient(f"http://127.0.0.1:{environment['REGSEARCH_PORT']}")
        client.wait_until_ready(120)
        ids = [client.post("/v1/studies", study(seed, given))["id"] for seed in range(given.studies)]
        begun = time.monotonic()
        options = ("--max", str(given.nodes), "--idle-seconds", "5", "--poll-seconds", "1", "--until-empty")
        launcher = start("service.cli", "launch", "ray", "--address", nodes.address, *options)
        lost, most, due, finished_at = 0, 0, begun + given.every, 0.0
        while launcher.poll() is None:
            time.sleep(0.5)
            most = max(most, sum(map(len, nodes.workers())))
            if not finished_at and client.get("/v1/queue")["studies"] == 0:
                finished_at = time.monotonic()
            if not finished_at and time.monotonic() >= due:
                nodes.lose(chooser.randrange(given.nodes))
                nodes.add()
                lost, due = lost + 1, due + given.every
        ended = time.monotonic()
        left = sum(map(len, nodes.workers()))
        found = [client.get(f"/v1/studies/{each}") for each in ids]
        client.close()
        api.terminate()
        api.wait()
    nodes.stop()
    broken = broken_invariants(postgres.url, home)
    postgres.stop()
    return {
        "launcher_exit_code": launcher.returncode,
        "finished": sum(each["state"] == "finished" for each in found),
        "trials": sum(each["trials"]["finished"] for each in found),
        "budget": given.studies * given.trials,
        "nodes_lost": lost,
        "most_workers": most,
        "workers_left": left,
        "broken_invariants": broken,
        "seconds": round((finished_at or ended) - begun),
        "seconds_until_no_worker": round(ended - (finished_at or ended)),
    }


def main() -> None:
    """One round."""
    small = {"studies": 2, "nodes": 2, "trials": 4, "epochs": 3}
    options = Options("ray_nodes", __doc__, quick=small)
    options.add_argument("--studies", type=int, default=20)
    options.add_argument("--nodes", type=int, default=3)
    options.add_argument("--every", type=float, default=20.0, help="seconds from one loss to the next")
    options.add_argument("--trials", type=int, default=24, help="of a study")
    options.add_argument("--epochs", type=int, default=40)
    given = options.given()
    require(["ray", "postgresql"])
    warnings.simplefilter("ignore")
    rounds = Rounds("ray_nodes", given, count="studies", lease_seconds=LEASE_SECONDS)
    rounds.conclude(rounds.once("all", partial(run, given)))


if __name__ == "__main__":
    main()

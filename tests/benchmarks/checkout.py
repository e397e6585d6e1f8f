"""One study by the processes of a checkout: its API, one worker, a new SQLite file, caches that are handed in.

Only what stays the same from version to version is used: the programs `service.cli serve` and `workers`, the settings in the
environment, and the REST interface. So an older checkout can be measured beside this one, with the same interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from service.cli.supervisor import Supervisor, free_port, last_line
from service.client.connection import HttpClient
from tests.benchmarks.rounds import ROOT, in_turn, ratio, spread

READY_SECONDS = 120.0
POLL_SECONDS = 0.5
PAGE = 200
SEARCHED = ("queued", "running")
"""States of a study that still is searched."""
CACHES = ("cold", "warm")
UNANSWERED = (*SEARCHED, "finalizing")
"""States of a study that has no answer yet."""


def environment(checkout: Path) -> dict[str, str]:
    """That of this process without settings of the operator, in which Python finds the packages of ``checkout`` alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REGSEARCH_")}
    return {**kept, "PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}


def check(checkout: Path) -> None:
    """Make sure that the programs of ``checkout`` are those that would run.

    Raises:
        SystemExit: There are none, or they can't be imported.
    """
    code = "import service.cli, workers, pathlib; print(pathlib.Path(workers.__file__).parents[1].resolve())"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment(checkout), capture_output=True, text=True, check=False)
    if found.returncode or Path(found.stdout.strip()) != checkout.resolve():
        reason = (found.stderr.strip().splitlines() or [f"its packages are imported from {found.stdout.strip()}"])[-1]
        sys.exit(f"{checkout} is not a checkout that can be measured: {reason}")


def search(
    checkout: Path,
    study: Mapping[str, Any],
    cache: Path,
    roots: Path | None = None,
    worker_cores: Collection[int] | None = None,
    until: Collection[str] = SEARCHED,
) -> dict[str, Any]:
    """Search a study, and stop as soon as its search is over, or its answer there.

    Args:
        checkout: Whose processes do it.
        study: The body of `POST /v1/studies`.
        cache: Where they keep what they measure and compile.
        roots: The directory of the files that the study names.
        worker_cores: The cores that the worker is confined to.
        until: The states in which it is waited for.

    Returns:
        Trials, trial-epochs, seconds from the worker's first lease to the end of the last trial, their rate, and the last
        that the worker told of itself. Of a study that was answered ``answer_seconds``, from the submit on.

    Raises:
        RuntimeError: A process died, or the study failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port()
        settings = {
            "REGSEARCH_HOME": scratch,
            "REGSEARCH_PORT": str(port),
            "REGSEARCH_CACHE": str(cache / "regsearch"),
            "REGSEARCH_DATA_ROOTS": f'["{roots}"]' if roots else "[]",
            "REGSEARCH_DASHBOARD": "off",
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "TRITON_CACHE_DIR": str(cache / "triton"),
        }
        with Supervisor(environment(checkout) | settings, Path(scratch), print) as supervisor:
            supervisor.add("api", "service.cli", "serve")
            client = HttpClient(f"http://127.0.0.1:{port}")
            client.wait_until_ready(READY_SECONDS)
            number = client.post("/v1/studies", dict(study))["id"]
            with confined(worker_cores):
                supervisor.add("worker", "workers")
            stats = _waited(supervisor, client, number, until)
            figures = _figures(client, number)
            client.close()
    return figures | stats


def beside(
    other: Path, study: Mapping[str, Any], folder: Path, number: int, until: Collection[str] = SEARCHED
) -> dict[str, dict[str, Any]]:
    """Round ``number`` of a study in this checkout and in ``other``: with empty caches, then with those that this filled.

    ``folder`` has the files that the study names, and is where the caches are.
    """
    checkouts = {"this": ROOT, "other": other}
    sides = {side: partial(search, path, study, folder / side, folder, until=until) for side, path in checkouts.items()}
    return {cache: in_turn(sides, number) for cache in CACHES}


def compared(rounds: Sequence[Mapping[str, Mapping[str, Any]]], what: str, name: str) -> dict[str, Any]:
    """The figure ``what`` of the rounds of `beside`: both sides' values, as ``name``, and their ratios."""
    found: dict[str, Any] = {}
    for cache in CACHES:
        values = [{side: each[cache][side][what] for side in ("this", "other")} for each in rounds]
        sides = {side: spread(each[side] for each in values) for side in ("this", "other")}
        found[cache] = {"this_over_other": ratio(values, "this", "other"), name: sides}
    return found


@contextmanager
def confined(cores: Collection[int] | None) -> Iterator[None]:
    """Processes started within it may use these ``cores`` only."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _waited(supervisor: Supervisor, client: HttpClient, number: int, states: Collection[str]) -> dict[str, Any]:
    """Wait until the study is in none of these states; what the worker told last of its occupancy and its time."""
    stats: dict[str, Any] = {}
    while True:
        study = client.get(f"/v1/studies/{number}")
        for worker in client.get("/v1/workers"):
            told = worker["stats"]
            stats |= {name: told[name] for name in ("shares", "occupancy", "steady_occupancy") if name in told}
        if study["state"] not in states:
            break
        for child in supervisor.children:
            if not child.running:
                raise RuntimeError(f"{child.name} ended: {last_line(child.log)}")
        time.sleep(POLL_SECONDS)
    if study["state"] in ("failed", "cancelled"):
        raise RuntimeError(f"the study is {study['state']}: {study['reason']}")
    return stats


def _figures(client: HttpClient, number: int) -> dict[str, Any]:
    """What the search did, from the study and its trials."""
    study = client.get(f"/v1/studies/{number}")
    trials: list[dict[str, Any]] = []
    while len(trials) < study["trials"]["finished"]:
        trials += client.get(f"/v1/studies/{number}/trials", offset=len(trials), limit=PAGE)["trials"]
    last = max(datetime.fromisoformat(trial["finished_at"]) for trial in trials)
    seconds = (last - datetime.fromisoformat(study["started_at"])).total_seconds()
    epochs = sum(trial["epochs"] for trial in trials)
    found = {"trials": len(trials), "trial_epochs": epochs, "seconds": seconds, "rate": epochs / seconds}
    if study["finished_at"] is None:
        return found
    submitted, answered = (datetime.fromisoformat(study[name]) for name in ("created_at", "finished_at"))
    return found | {"answer_seconds": (answered - submitted).total_seconds()}

"""Seconds from a submit to the first trial that is told, and to the end of a small study's search.

    python -m tests.benchmarks.first_trial [--rounds 5]

A service with one idle worker; in each round everything is new, the caches of measurements and programs too. ``tabular``: of
a study with all defaults on diabetes, whose trials are five folds each. ``default``: with the preset `default`. ``small``:
the last of 12 trials of 8 epochs on 200 rows with all defaults.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from service.cli.local import running
from service.cli.supervisor import free_port
from service.client.connection import HttpClient
from service.settings import Settings
from tests.benchmarks.default_study import STUDY
from tests.benchmarks.rounds import Options, Rounds, in_turn, spread

POLL_SECONDS = 0.2
SMALL_ROWS, SMALL_TRIALS, SMALL_EPOCHS = 200, 12, 8


def rows(path: Path) -> Path:
    """A CSV file of a line with noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SMALL_ROWS, 5))
    y = x @ rng.normal(size=5) + 0.3 * rng.normal(size=SMALL_ROWS)
    np.savetxt(path, np.column_stack([x, y]), delimiter=",", header="a,b,c,d,e,y", comments="")
    return path


def seconds(study: Callable[[HttpClient, Path], dict[str, Any]], trials: int) -> float:
    """From the submit to the moment at which so many trials had been told; in a home and with caches of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(home / "inductor")
        settings = Settings(home=home / "home", cache=home / "cache", port=free_port())
        with running(settings, Console(stderr=True, quiet=True), 1) as (_, client):
            while not any(worker["state"] == "alive" for worker in client.get("/v1/workers")):
                time.sleep(POLL_SECONDS)
            posted = client.post("/v1/studies", study(client, home))
            number = posted["id"]
            while client.get(f"/v1/studies/{number}")["trials"]["finished"] < trials:
                time.sleep(POLL_SECONDS)
            told = client.get(f"/v1/studies/{number}/trials", limit=200)["trials"]
            ends = sorted(datetime.fromisoformat(each["finished_at"]) for each in told if each["finished_at"])
            client.post(f"/v1/studies/{number}/cancel", {})
            return (ends[trials - 1] - datetime.fromisoformat(posted["created_at"])).total_seconds()


def tabular(client: HttpClient, home: Path) -> dict[str, Any]:
    """A study with all defaults."""
    return {"data": {"dataset": "diabetes"}}


def default(client: HttpClient, home: Path) -> dict[str, Any]:
    """A study of a plain network."""
    return {"data": {"dataset": "diabetes"}, **STUDY}


def small(client: HttpClient, home: Path) -> dict[str, Any]:
    """A small one."""
    dataset = client.upload(rows(home / "rows.csv"), None)["id"]
    return {"data": {"dataset": dataset, "target": "y"}, "budget": {"trials": SMALL_TRIALS, "epochs": SMALL_EPOCHS}}


def main() -> None:
    """Round by round."""
    options = Options("first_trial", __doc__, quick={"rounds": 1})
    options.add_argument("--rounds", type=int, default=5, help="of all in turn")
    given = options.given()
    rounds = Rounds("first_trial", given)
    sides = {
        "tabular": partial(seconds, tabular, 1),
        "default": partial(seconds, default, 1),
        "small": partial(seconds, small, SMALL_TRIALS),
    }
    done = [rounds.once(f"{number}", partial(in_turn, sides, number)) for number in range(given.rounds)]
    rounds.conclude({side: spread(each[side] for each in done) for side in sides})


if __name__ == "__main__":
    main()

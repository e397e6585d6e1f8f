"""Winner against the unregularized network on real data sets, uploaded as CSV through the API as a user would.

    python -m tests.benchmarks.real_data DIRECTORY credit-g segment adult [--trials 100] [--epochs 50] [--width 128]

DIRECTORY holds a folder per data set with `data.csv.gz` and `meta.json` (which names the target and the categories).
Starts its own service; the result file holds scores with intervals, wall times and the shares of the worker's time. Each
data set is a round.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from service.cli.local import running
from service.cli.supervisor import free_port
from service.cli.watch import watch
from service.client.connection import HttpClient
from service.settings import Settings
from tests.benchmarks.rounds import Options, Rounds, must_exist

FILES = ("data.csv.gz", "meta.json")


def search(client: HttpClient, folder: Path, how: dict[str, Any], console: Console) -> dict[str, Any]:
    """Upload one data set, search it, and return what is worth keeping of the answer."""
    meta = json.loads((folder / "meta.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{folder.name}.csv"
        path.write_bytes(gzip.decompress((folder / "data.csv.gz").read_bytes()))
        dataset = client.upload(path, folder.name)
    data = {"dataset": dataset["id"], "target": meta["target"], "categorical": meta.get("categorical", [])}
    study = client.post("/v1/studies", {"name": folder.name, "data": data, **how})
    ended = watch(client, study["id"], console)
    if ended["state"] != "finished":
        sys.exit(f"{folder.name}: {ended['state']}: {ended['reason']}")
    result = client.get(f"/v1/studies/{study['id']}/result")
    kept = ("metric", "verdict", "seeds", "rows", "wall_seconds", "finalizing_seconds", "utilization", "trials")
    settings = [result["winner"], result["baseline"], *(each for each in result["others"] if each["role"] == "baseline")]
    scores = [{name: each[name] for name in ("name", "recipe", "valid", "test")} for each in settings]
    return {**{name: result[name] for name in kept}, "scores": scores}


def main() -> None:
    """Search the named data sets one after the other."""
    options = Options("real_data", __doc__, quick={"trials": 6, "epochs": 4, "width": 16})
    options.add_argument("directory", type=Path, help="a folder for each data set")
    options.add_argument("names", nargs="+", help="data sets in it")
    options.add_argument("--trials", type=int, default=100, help="of each study")
    options.add_argument("--epochs", type=int, default=50, help="of a trial")
    options.add_argument("--width", type=int, default=128, help="of both hidden layers")
    given = options.given()
    must_exist(given.directory / name / file for name in given.names for file in FILES)
    console = Console(stderr=True)
    how = {"model": {"widths": [given.width] * 2}, "budget": {"trials": given.trials, "epochs": given.epochs}}
    rounds = Rounds("real_data_" + "_".join(given.names), given)
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), port=free_port())
        with running(settings, console, None) as (_, client):
            work = partial(search, client, how=how, console=console)
            found = {name: rounds.once(name, partial(work, given.directory / name)) for name in given.names}
    rounds.conclude({**how, **found})


if __name__ == "__main__":
    main()

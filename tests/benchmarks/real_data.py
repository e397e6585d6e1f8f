"""Winner against the unregularized network on real data sets, uploaded as CSV through the API as a user would.

    python tests/benchmarks/real_data.py DIRECTORY credit-g segment adult

DIRECTORY holds a folder per data set with `data.csv.gz` and `meta.json` (which names the target and the categories).
Starts its own service; the result file holds scores with intervals, wall times and the shares of the worker's time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from service.cli.client import Client
from service.cli.local import running
from service.cli.supervisor import free_port
from service.cli.watch import watch
from service.settings import Settings
from tests.benchmarks.report import save


def search(client: Client, folder: Path, how: dict[str, Any], console: Console) -> dict[str, Any]:
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--width", type=int, default=128)
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), port=free_port())
        with running(settings, console, None) as (_, client):
            how = {
                "model": {"widths": [arguments.width] * 2},
                "budget": {"trials": arguments.trials, "epochs": arguments.epochs},
            }
            figures = {name: search(client, arguments.directory / name, how, console) for name in arguments.names}
    console.print(f"{save('real_data_' + '_'.join(arguments.names), {**how, **figures})}")


if __name__ == "__main__":
    main()

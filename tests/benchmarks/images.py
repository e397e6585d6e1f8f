"""The spaces `images` and `sequences` against the same network without regularization, on the locked test part.

    python tests/benchmarks/images.py fashion DIRECTORY [--train 1000 --epochs 25 --trials 20 …]
    python tests/benchmarks/images.py vowels DIRECTORY

DIRECTORY holds `fashion-5k/fashion_5k.npz` (28x28 clothes in ten classes) and `japanese-vowels/japanese-vowels.npz` (nine
speakers, series of 7 to 29 steps). Images are averaged down to --side pixels, and so many of the file's rows are taken that
a small CPU is done in a quarter of an hour. The study goes through the API as a user's would; the winner and the baseline
are trained over five seeds, and the difference between them comes with its 95 % interval over seeds and test rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from service.cli.client import Client
from service.cli.local import running
from service.cli.supervisor import free_port
from service.cli.watch import watch
from service.settings import Settings
from tests.benchmarks.report import save


def averaged(x: NDArray[Any], side: int) -> NDArray[np.uint8]:
    """Square images (n, s, s) as means of equal blocks, (n, side, side)."""
    block = x.shape[1] // side
    blocks = x.reshape(len(x), side, block, side, block)
    means: NDArray[np.uint8] = blocks.mean((2, 4)).round().astype(np.uint8)
    return means


def clothes(directory: Path, arguments: argparse.Namespace, target: Path) -> dict[str, Any]:
    """Write the images that are used; returns the study's model, space and validation."""
    content = np.load(directory / "fashion-5k" / "fashion_5k.npz")
    parts = {"train": arguments.train, "val": arguments.valid, "test": arguments.test}
    rng = np.random.default_rng(arguments.seed)
    chosen = {name: rng.permutation(len(content[f"y_{name}"]))[:count] for name, count in parts.items()}
    x = np.concatenate([averaged(content[f"X_{name}"][rows], arguments.side) for name, rows in chosen.items()])
    y = np.concatenate([content[f"y_{name}"][rows] for name, rows in chosen.items()])
    np.savez_compressed(target, x=x, y=y)
    model = {"family": "cnn", "width": arguments.width, "depth": 3}
    return {"model": model, "space": {"preset": "images", "batch_size": 64}, "validation": _shares(list(parts.values()))}


def vowels(directory: Path, arguments: argparse.Namespace, target: Path) -> dict[str, Any]:
    """Write all series; returns the study's model, space and validation."""
    content = np.load(directory / "japanese-vowels" / "japanese-vowels.npz")
    arrays = {
        new: np.concatenate([content[f"{old}_train"], content[f"{old}_test"]])
        for new, old in (("x", "X"), ("y", "y"), ("lengths", "len"))
    }
    np.savez_compressed(target, x=arrays["x"], y=arrays["y"], lengths=arrays["lengths"])
    model = {"family": "sequence", "width": arguments.width}
    return {"model": model, "space": {"preset": "sequences", "batch_size": 64}, "validation": _shares([270, 100, 270])}


def _shares(counts: list[int]) -> dict[str, float]:
    total = sum(counts)
    return {"valid_fraction": counts[1] / total, "test_fraction": counts[2] / total}


def search(client: Client, path: Path, how: dict[str, Any], console: Console) -> dict[str, Any]:
    """Search one file; returns what is worth keeping of the answer."""
    dataset = client.upload(path, path.stem)
    study = client.post("/v1/studies", {"name": path.stem, "data": {"dataset": dataset["id"]}, **how})
    ended = watch(client, study["id"], console)
    if ended["state"] != "finished":
        sys.exit(f"{path.stem}: {ended['state']}: {ended['reason']}")
    result = client.get(f"/v1/studies/{study['id']}/result")
    kept = ("metric", "verdict", "seeds", "rows", "ablation", "wall_seconds", "finalizing_seconds", "utilization", "trials")
    settings = [result["winner"], result["baseline"], *(each for each in result["others"] if each["role"] == "baseline")]
    named = ("name", "recipe", "train", "valid", "test", "behind_winner")
    return {
        **{name: result.get(name) for name in kept},
        "scores": [{name: each.get(name) for name in named} for each in settings],
    }


def main() -> None:
    """Search one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["fashion", "vowels"])
    parser.add_argument("directory", type=Path)
    for name, default in {
        "train": 1000, "valid": 500, "test": 3000, "side": 14, "width": 12, "trials": 20, "epochs": 25, "seed": 0,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / f"{arguments.which}.npz"
        how = (clothes if arguments.which == "fashion" else vowels)(arguments.directory, arguments, path)
        how |= {"budget": {"trials": arguments.trials, "epochs": arguments.epochs}, "seed": arguments.seed}
        how["pruner"] = {"name": "successive_halving", "min_epochs": 5}
        with running(Settings(home=Path(home), port=free_port()), console, None) as (_, client):
            figures = search(client, path, how, console)
    asked = {name: value for name, value in vars(arguments).items() if name not in ("which", "directory")}
    console.print(f"{save(f'images_{arguments.which}', {'asked': asked, 'study': how, **figures})}")


if __name__ == "__main__":
    main()

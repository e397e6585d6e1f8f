"""The spaces `images` and `sequences` against the same network without regularization, on the locked test part.

    python -m tests.benchmarks.images fashion DIRECTORY [--train 1000] [--valid 1000] [--test 4000] [--side 14] [--trials 24]
    python -m tests.benchmarks.images vowels DIRECTORY [--trials 24] [--epochs 40] [--seeds 5]

DIRECTORY holds `fashion-5k/fashion_5k.npz` (28x28 clothes in ten classes) and `japanese-vowels/japanese-vowels.npz` (nine
speakers, series of 7 to 29 steps). Images are averaged down to `--side` pixels, and of the file's training, validation and
test rows as many are taken as one core needs half an hour for. Nothing is pruned in the first half of a trial: what is
regularized learns slowly, and is ahead at the end only. The study goes through the API as a user's would; the winner and the
baselines are trained over `--seeds` seeds, and the difference between them comes with its 95 % interval over seeds and test
rows. One study is one round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from service.cli.local import running
from service.cli.supervisor import free_port
from service.cli.watch import watch
from service.client.connection import HttpClient
from service.settings import Settings
from tests.benchmarks.rounds import Options, Rounds, must_exist

FILES = {"fashion": "fashion-5k/fashion_5k.npz", "vowels": "japanese-vowels/japanese-vowels.npz"}
BUDGET = ("trials", "epochs", "finalists", "seeds")


def averaged(x: NDArray[Any], side: int) -> NDArray[np.uint8]:
    """Square images (n, s, s) as means of equal blocks, (n, side, side)."""
    block = x.shape[1] // side
    blocks = x.reshape(len(x), side, block, side, block)
    means: NDArray[np.uint8] = blocks.mean((2, 4)).round().astype(np.uint8)
    return means


def clothes(directory: Path, arguments: argparse.Namespace, target: Path) -> dict[str, Any]:
    """Write the images that are used; returns the study's model, space and validation."""
    content = np.load(directory / FILES["fashion"])
    rng = np.random.default_rng(arguments.seed)
    arrays: dict[str, Any] = {}
    for part, count in {"train": arguments.train, "val": arguments.valid, "test": arguments.test}.items():
        rows = rng.permutation(len(content[f"y_{part}"]))[:count]
        arrays |= {
            f"x_{part}": averaged(content[f"X_{part}"][rows], arguments.side),
            f"y_{part}": content[f"y_{part}"][rows],
        }
    np.savez_compressed(target, **arrays)
    model = {"family": "cnn", "width": arguments.width, "depth": 3}
    return {"model": model, "space": {"preset": "images", "batch_size": 32}, "validation": {"given": True}}


def vowels(directory: Path, arguments: argparse.Namespace, target: Path) -> dict[str, Any]:
    """Write all series; returns the study's model, space and validation."""
    content = np.load(directory / FILES["vowels"])
    arrays = {
        new: np.concatenate([content[f"{old}_train"], content[f"{old}_test"]])
        for new, old in (("x", "X"), ("y", "y"), ("lengths", "len"))
    }
    np.savez_compressed(target, x=arrays["x"], y=arrays["y"], lengths=arrays["lengths"])
    model = {"family": "sequence", "width": arguments.width}
    shares = {"valid_fraction": 100 / 640, "test_fraction": 270 / 640}
    return {"model": model, "space": {"preset": "sequences", "batch_size": 64}, "validation": shares}


def search(client: HttpClient, path: Path, how: dict[str, Any], console: Console) -> dict[str, Any]:
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


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """One study on a service of its own."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / f"{given.which}.npz"
        how = (clothes if given.which == "fashion" else vowels)(given.directory, given, path)
        how |= {"budget": {name: getattr(given, name) for name in BUDGET}, "seed": given.seed}
        how["pruner"] = {"name": "median", "warmup_epochs": given.epochs // 2}
        with running(Settings(home=Path(home), port=free_port()), console, None) as (_, client):
            return {"study": how, **search(client, path, how, console)}


def main() -> None:
    """Search one of the two."""
    small = {"train": 200, "valid": 200, "test": 200, "side": 7, "trials": 4, "epochs": 4, "finalists": 1, "seeds": 2}
    options = Options("images", __doc__, quick=small)
    options.add_argument("which", choices=["fashion", "vowels"])
    options.add_argument("directory", type=Path, help="a folder for each data set")
    for name, default, what in (
        ("train", 1000, "training images"),
        ("valid", 1000, "validation images"),
        ("test", 4000, "test images"),
        ("side", 14, "height and width of an image in pixels"),
        ("width", 16, "channels of the first stage, or units of a sequence's layers"),
        ("trials", 24, "of the study"),
        ("epochs", 40, "of a trial"),
        ("finalists", 3, "settings that are trained again"),
        ("seeds", 5, "seeds of each of them"),
        ("seed", 0, "of the study, and of the choice of images"),
    ):
        options.add_argument(f"--{name}", type=int, default=default, help=what)
    given = options.given()
    must_exist([given.directory / FILES[given.which]])
    rounds = Rounds(f"images_{given.which}", given)
    rounds.conclude(rounds.once("study", partial(measure, given, Console(stderr=True))))


if __name__ == "__main__":
    main()

"""Peak memory of a worker that searches data which are large for it: 5 000 image files, and arrays that are mapped.

    python -m tests.benchmarks.large_data [--limit 1024] [--images 5000] [--megabytes 640] [--rounds 1]

By REST, with an API and one worker, whose memory is limited to ``--limit`` MiB (`REGSEARCH_WORKER_MEMORY_MB`), everything
new: from the upload to the answer. ``images``: a ZIP of folders by class, of JPEG and PNG files of several
sizes. ``mapped``: a folder of `x.npy` and `y.npy` by its address, whose float32 rows take ``--megabytes``, more than half of
the limit. The peaks are `VmHWM` of the processes, which counts pages of mapped files as well, and `anonymous` the largest
`RssAnon` seen, which does not; children of the worker compile programs.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from rich.console import Console

from service.cli.local import running
from service.cli.supervisor import free_port
from service.client.connection import HttpClient
from service.settings import Settings
from tests.benchmarks.rounds import Options, Rounds, in_turn, spread

POLL_SECONDS = 0.1
CLASSES, FEATURES, BLOCK = 10, 1000, 4096
SIZES = (24, 28, 36)
SEARCHED = {
    "space": {
        "preset": "off",
        "lr": {"low": 1e-3, "high": 1e-2, "log": True},
        "weight_decay": {"low": 0.01, "high": 1.0, "log": True, "off": True},
    },
    "budget": {"trials": 6, "epochs": 2, "finalists": 1, "seeds": 2},
    "deliver": "off",
}


def image_files(path: Path, count: int) -> Path:
    """A ZIP file of images in folders by class: noise, in a colour that tells it."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(count):
            label, side = number % CLASSES, SIZES[number % len(SIZES)]
            hue = 80 + 12 * np.array([label, (3 * label) % CLASSES, (7 * label) % CLASSES])
            pixels = rng.normal(hue, 60, (side, side, 3)).clip(0, 255).astype(np.uint8)
            ending = ("png", "jpeg")[number % 2]
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, ending)
            archive.writestr(f"class-{label}/{number}.{ending}", file.getvalue())
    return path


def arrays(folder: Path, megabytes: float) -> Path:
    """A folder of `x.npy` and `y.npy`, written block by block: normal numbers, whose first ones tell the class."""
    rows = max(200, int(megabytes * 2**20 / (4 * FEATURES)))
    rng = np.random.default_rng(0)
    y = rng.integers(CLASSES, size=rows)
    folder.mkdir()
    np.save(folder / "y.npy", y)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, FEATURES))
    for begin in range(0, rows, BLOCK):
        block = rng.normal(size=(len(y[begin : begin + BLOCK]), FEATURES)).astype(np.float32)
        block[np.arange(len(block)), y[begin : begin + BLOCK]] += 2.0
        x[begin : begin + BLOCK] = block
    x.flush()
    return folder


def images_study(client: HttpClient, home: Path, count: int) -> dict[str, Any]:
    """A small convolutional network on the ZIP file."""
    dataset = client.upload(image_files(home / "images.zip", count), None)["id"]
    model = {"family": "cnn", "width": 8, "depth": 2}
    return {"data": {"dataset": dataset, "image_size": 24}, "model": model}


def mapped_study(client: HttpClient, home: Path, megabytes: float) -> dict[str, Any]:
    """A small perceptron on the arrays."""
    dataset = client.upload(f"file://{arrays(home / 'arrays', megabytes)}", None)["id"]
    model = {"widths": [32]}
    return {"data": {"dataset": dataset}, "model": model}


class Peaks:
    """The largest memory of the service's processes so far, in MiB by what they are."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._high: dict[int, tuple[str, int]] = {}
        self._anonymous = 0

    def look(self) -> None:
        """See what the processes have taken."""
        below = {child.pid for child in psutil.Process(self._worker).children(recursive=True)}
        for process in psutil.Process().children(recursive=True):
            try:
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            except OSError:  # it has ended
                continue
            found = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmHWM", "RssAnon"))}
            if len(found) < 2:
                continue
            kind = "worker" if process.pid == self._worker else "children" if process.pid in below else "api"
            self._high[process.pid] = kind, int(found["VmHWM"])
            if kind == "worker":
                self._anonymous = max(self._anonymous, int(found["RssAnon"]))

    def megabytes(self) -> dict[str, float]:
        """The sums of the processes of each kind; the worker's anonymous memory."""
        kinds = ("worker", "children", "api")
        found = {kind: sum(high for own, high in self._high.values() if own == kind) for kind in kinds}
        return {name: round(value / 1024, 1) for name, value in {**found, "anonymous": self._anonymous}.items()}


def searched(study: Callable[[HttpClient, Path], dict[str, Any]], limit: float) -> dict[str, Any]:
    """A whole study within the limit: seconds from the submit to the answer, peaks in MiB, and the winner's test score."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        settings = {"worker_memory_mb": limit, "max_upload_mb": 1 << 14, "cache": home / "cache"}
        settings |= {"data_prefixes": json.dumps([f"file://{home}/"]), "home": home / "home", "port": free_port()}
        os.environ.update({f"REGSEARCH_{name.upper()}": str(value) for name, value in settings.items()})
        with running(Settings(), Console(stderr=True, quiet=True), 1) as (_, client):
            posted = study(client, home)
            while not (alive := [each for each in client.get("/v1/workers") if each["state"] == "alive"]):
                time.sleep(POLL_SECONDS)
            peaks, begin = Peaks(int(alive[0]["pid"])), time.monotonic()
            number = client.post("/v1/studies", {**SEARCHED, **posted})["id"]
            while (found := client.get(f"/v1/studies/{number}"))["state"] not in ("finished", "failed"):
                peaks.look()
                time.sleep(POLL_SECONDS)
            seconds = time.monotonic() - begin
            peaks.look()
            if found["state"] == "failed":
                raise SystemExit(f"the study failed: {found['reason']}")
            result = client.get(f"/v1/studies/{number}/result")
            described = client.get(f"/v1/datasets/{posted['data']['dataset']}")
        told = {"rows": described["rows"], "megabytes": round(described["size"] / 2**20, 1), "seconds": round(seconds, 1)}
        return {**told, "peak_megabytes": peaks.megabytes(), "test": result["winner"]["test"]["mean"]}


def main() -> None:
    """Round by round."""
    options = Options("large_data", __doc__, quick={"images": 200, "megabytes": 20, "limit": 1024})
    options.add_argument("--limit", type=int, default=1024, help="memory of the worker, in MiB")
    options.add_argument("--images", type=int, default=5000, help="image files")
    options.add_argument("--megabytes", type=int, default=640, help="of the arrays")
    options.add_argument("--rounds", type=int, default=1, help="of both in turn")
    given = options.given()
    rounds = Rounds("large_data", given)
    sides = {
        "images": partial(searched, partial(images_study, count=given.images), given.limit),
        "mapped": partial(searched, partial(mapped_study, megabytes=given.megabytes), given.limit),
    }
    done = [rounds.once(f"{number}", partial(in_turn, sides, number)) for number in range(given.rounds)]
    figures = {}
    for side in sides:
        peaks = {
            kind: spread(each[side]["peak_megabytes"][kind] for each in done) for kind in done[0][side]["peak_megabytes"]
        }
        figures[side] = {"seconds": spread(each[side]["seconds"] for each in done), "peak_megabytes": peaks}
    rounds.conclude(figures)


if __name__ == "__main__":
    main()

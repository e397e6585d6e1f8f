"""The processes of `test_crew`: rank 0 trains runs whose batches it divides, and writes their curves."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from service.errors import TrialError
from service.spec import Recipe
from tests.unit.stack import test_families as families
from tests.unit.stack.runs import data, protocol, recipe, runner
from workers.modules import published
from workers.planning.process import set_up
from workers.stack import follower, link
from workers.stack.crew import Crew
from workers.stack.device_data import DeviceData
from workers.stack.run import Run

PENALTIES: dict[str, Any] = {"l1": 1e-3, "weight_decay": 0.1, "clip_norm": 0.5, "max_norm": 1.0, "momentum": 0.9}
CHANCE: dict[str, Any] = {"dropout": 0.3, "mixup": 0.4, "input_noise": 0.1, "label_smoothing": 0.1, "init": "own"}
MODULE: dict[str, Any] = {"family": "module", "batch_size": 16, "lr": 0.01}

CASES: dict[str, tuple[Recipe, str]] = {
    "penalties": (recipe(**PENALTIES, averaging="ema", ema_decay=0.9), "flat"),
    "chance": (Recipe({**MODULE, **CHANCE, "module": "mynets.good:Perceptron", "micro_batches": 3}), "flat"),
    "batch normalization": (Recipe({**MODULE, "init": "own", "module": "mynets.good:ResNet", "dropout": 0.2}), "image"),
}
ANSWERS = 38
"""Of a follower before it is killed, which is in the last case."""
MISSING = Recipe({**MODULE, "init": "own", "module": "mynets.good:small"})
"""Only rank 0 has it."""


def allowed() -> None:
    """Import their modules."""
    assert not [each for each in published(["mynets.good:Perceptron", "mynets.good:ResNet"]) if each.error]


def curves(name: str, crew: Crew | None) -> dict[str, list[float]]:
    """The curve of a case, on two folds or on images."""
    setting, kind = CASES[name]
    on = families.data("cnn") if kind == "image" else data(folds=2)
    folds = tuple((fold, 7 + fold) for fold in range(on.folds))
    return _trained(setting, folds, replace(on, crew=crew)).curve


def _trained(setting: Recipe, folds: tuple[tuple[int, int], ...], on: DeviceData) -> Run:
    stack, run = runner(setting, on), Run(0, setting, folds, protocol(epochs=4))
    stack.add([run])
    while run.ending is None:
        stack.epoch()
    return run


def lead(out: Path) -> None:
    """Train all cases, and one that the followers can't."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it when a process is lost
    lost: list[bool] = []
    joined = link.Link(lambda: lost.append(True))
    crew = Crew(2, joined)
    found: dict[str, Any] = {}
    for name in CASES:
        found[name] = curves(name, crew)
        if name == "chance":
            published(["mynets.good:small"])
            try:
                _trained(MISSING, ((0, 1),), replace(data(), crew=crew))
            except TrialError as error:
                found["error"] = str(error)
    found["lost"] = lost
    out.write_text(json.dumps(found))
    joined.close()


def main() -> int:
    """Of one process."""
    set_up(1)
    allowed()
    link.join(torch.device("cpu"))
    if link.rank() == 0:
        lead(Path(sys.argv[1]))
        code = 0
    else:
        _end_after(ANSWERS)
        code = follower.follow(torch.device("cpu"))
    link.leave()
    return code


def _end_after(answers: int) -> None:
    """Have this process killed before its next answer."""
    usual, left = link.answer, iter(range(answers))

    def answer(*given: Any) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        usual(*given)

    vars(follower)["answer"] = answer


if __name__ == "__main__":
    sys.exit(main())

"""A recipe as a program: the training loop of `workers.plain` with the recipe filled in.

It is train.py of a model's archive, whose folder `plain` it imports, and it is shown in the report.
"""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.spec import Recipe
from workers.plain.network import Shape
from workers.plain.training import WATCHES


@dataclass(frozen=True)
class Training:
    """How a study's trials train: early stopping looks at the metric ``watched``; without it ``patience`` is None.

    ``stop_after``: it trains on all rows, for as many of the ``epochs``.
    """

    target: str | tuple[str, ...]
    epochs: int
    watched: str
    weights: str | None = None
    patience: int | None = None
    min_delta: float = 0.0
    restore_best: bool = True
    stop_after: int | None = None


_PROGRAM = '''"""Trains this network again, from scratch, in plain PyTorch; the loop is in plain/training.py.

    python train.py rows.csv

The updates are those of the search, the random numbers are its own.{instead}
"""

import sys
from pathlib import Path

from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

{foreign}from plain.layers import dropout_of
from plain.network import Shape, build, initialize, spread
from plain.preprocessing import CannotPredict
from plain.targets import examples, split, weights
from plain.training import WATCHES, Rows, train

RECIPE = {recipe}
NETWORK = {network}
TARGET = {target!r}
WEIGHTS = {weights!r}
EPOCHS = {epochs}
STOPPING = {stopping}
SEED = 0

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python train.py ROWS, a CSV file with the columns of the training data, or an NPZ file")
    try:
        (x, y), w = examples(sys.argv[1], TARGET, HERE), weights(sys.argv[1], WEIGHTS)
    except (CannotPredict, OSError) as error:
        sys.exit(str(error))
{imports}    network = build(Shape.from_json(NETWORK), dropout_of(RECIPE))
    rows = {rows}
    initialize(network, RECIPE, SEED, spread(rows.x))
    trained = train(network, RECIPE, rows, epochs=EPOCHS, watch=WATCHES[{watched!r}], seed=SEED, **STOPPING)
    for epoch, (loss, watched) in enumerate(zip(trained.losses, trained.watched)):
        print(f"epoch {{epoch}}: training loss {{loss:.4g}}, watched {{watched:.4g}}")
    save_file({{name: value for name, value in trained.network.state_dict().items() if value.ndim}}, "trained.safetensors")
'''


def program(shape: Shape, recipe: Recipe, training: Training) -> str:
    """The program of a recipe; what early stopping watches is the loss where the loop knows no such metric."""
    known, own = training.watched in WATCHES, shape.module is None
    stopping = {"patience": training.patience, "min_delta": training.min_delta, "restore_best": training.restore_best}
    again = training.stop_after is not None
    if again:
        stopping = {"stop_after": training.stop_after}
    return _PROGRAM.format(
        foreign="" if own else "from plain.foreign import imported\n",
        imports="" if own else f"    imported({shape.module!r})  # of which this archive has the weights only\n",
        recipe=_written(
            {name: list(value) if isinstance(value, tuple) else value for name, value in recipe.effective().items()}
        ),
        network=_written(shape.to_json()),
        target=training.target,
        weights=training.weights,
        epochs=training.epochs,
        stopping=stopping if training.patience or again else {},
        rows="Rows(x, y, x, y, w)  # nothing is held out" if again else "split(x, y, w, SEED)",
        watched=training.watched if known else "loss",
        instead="" if known else f"\nThe study's early stopping watched {training.watched}; this program watches the loss.",
    )


def _written(document: Mapping[str, Any]) -> str:
    return pprint.pformat(dict(document), width=110, sort_dicts=False)

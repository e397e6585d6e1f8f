"""The winning recipe trained again, on more rows than the search had: the networks that are handed out.

Called after the test part has been scored, so no score depends on it. The number of epochs is the mean of the winner's best
ones; as an epoch has more updates now, the updates grow with the rows. Nothing stops early, for no rows are left to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from service.spec import Deliver, StudySpec
from workers.answer.candidates import Candidate, Weights
from workers.answer.finalizer import Averaged
from workers.answer.training import Trainer
from workers.data import Fold, PrepareOptions, Split, prepare_alike, prepare_all
from workers.plain.network import Shape
from workers.stack.device_data import DeviceData
from workers.stack.layout import Layout
from workers.stack.run import Protocol
from workers.study_data import Prepared

_WATCHED_ROWS = 256
"""Training rows on which the loss is computed after every epoch, to notice a network that has diverged."""


@dataclass(frozen=True)
class Refitted:
    """Networks of one shape, trained on ``rows`` rows for ``epochs`` epochs; ``fold`` has their common preprocessing."""

    weights: Sequence[Weights]
    shape: Shape
    fold: Fold
    seeds: Sequence[int]
    epochs: int
    rows: int


def epochs_of(winner: Candidate) -> int:
    """The mean of the best epochs, counted from 1, over seeds (and folds, which share theirs)."""
    return max(1, round(float(np.mean([run.best_epoch + 1 for run in winner.runs.values()]))))


def networks_of(deliver: Deliver, scores: Averaged) -> int:
    """How many networks are to be trained: several, unless the average of the winner's has a higher loss than each alone."""
    match deliver.networks:
        case "single":
            return 1
        case "ensemble":
            return deliver.seeds
        case "auto":
            return deliver.seeds if scores.gain >= 0 else 1
        case _:
            assert_never(deliver.networks)


def refit(
    spec: StudySpec,
    data: Prepared,
    winner: Candidate,
    deliver: Deliver,
    networks: int,
    alive: Callable[[], None],
    layout: Layout,
) -> Refitted | None:
    """Train the winner's recipe with ``networks`` new seeds; None if no loss of them stays finite.

    Args:
        spec: The study's, resolved.
        data: Its data; only here are test rows trained on.
        winner: With its runs in the finals.
        deliver: Which rows.
        networks: How many.
        alive: Called between epochs.
        layout: Of the stack.
    """
    parts = [part for fold in data.split.folds for part in fold]
    everything = np.unique(np.concatenate([*parts, *([data.split.test] if deliver.rows == "all" else [])]))
    watched = everything[:: -(-len(everything) // _WATCHED_ROWS)]
    split = Split(((everything, watched),), data.split.test, data.split.duplicates)
    start = data.device.start
    if start is None:
        (fold,) = prepare_all(data.table, split, PrepareOptions.of(spec.data))
    else:
        kept = data.folds[0]
        (fold,) = prepare_alike(data.table, split, kept.preprocessor, kept.target)
    device = data.device
    on_device = DeviceData.of(
        [fold], task=device.task, outputs=device.outputs, device=device.device, quantile=device.quantile, start=start
    )
    epochs = epochs_of(winner)
    again = Candidate(winner.name, "finalist", winner.recipe)
    seeds = range(spec.budget.seeds, spec.budget.seeds + networks)
    protocol = Protocol("loss", spec.budget.epochs, None, stop_after=epochs)
    Trainer(spec, on_device, alive, seeds, lambda _: layout, protocol).train([again])
    if not again.runs:
        return None
    return Refitted(
        weights=[again.weights[index][0] for index in again.runs],
        shape=Prepared(data.table, split, [fold], on_device).shape(winner.recipe),
        fold=fold,
        seeds=[run.fold_seeds[0][1] for run in again.runs.values()],
        epochs=epochs,
        rows=len(everything),
    )

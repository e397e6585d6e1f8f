"""Weight averaging: exponential moving averages, or the mean of the weights at the ends of epochs.

After an update the average is h·average + (1 − h)·weights. So h = 0 follows the weights, h = 1 waits, a constant h is an
exponential moving average, and h = n / (n + 1) at the end of an epoch adds it to a mean of n. Equal to
`torch.optim.swa_utils.AveragedModel` with `use_buffers=True`. Reference: Izmailov et al., "Averaging weights leads to wider
optima and better generalization" (UAI 2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.spec import Recipe
from workers.stack.techniques.base import Columns, Step, Technique


def holds(recipe: Recipe, epoch: int, epochs: int, updates: int) -> NDArray[np.float32]:
    """(updates,) shares h of the average that the updates of ``epoch`` (0-based, of ``epochs``) keep."""
    kept = np.zeros(updates, dtype=np.float32)
    match recipe.word("averaging"):
        case "none":
            pass
        case "ema":
            kept[:] = recipe.number("ema_decay")
            if epoch == 0:
                kept[0] = 0.0
        case "swa":
            averaged = epoch - min(epochs - 1, round(recipe.number("swa_start") * epochs))
            if averaged > 0:
                kept[:] = 1.0
                kept[-1] = averaged / (averaged + 1)
        case word:
            raise AssertionError(f"averaging is {word!r}")
    return kept


class Averaging(Technique):
    """Has no column: what an update keeps of the average comes from `holds`."""

    name = "averaging"

    def blank(self, k: int, classes: int) -> Columns:
        """Nothing."""
        return {}

    def load(self, columns: Columns, lane: int, recipe: Recipe, balance: Tensor) -> None:
        """Nothing."""

    def after_update(self, step: Step) -> None:
        """Bring the averages of weights and statistics up to this update; exactly these where h is 0."""
        state = step.state
        for mean, present in ((state.mean_weights[0], state.weights), (state.mean_stats[0], state.stats)):
            mean.mul_(step.hold[:, None]).add_((1.0 - step.hold)[:, None] * present)


TECHNIQUES = (Averaging(),)

"""Weight averaging as a function of the epoch: how much of the average every update keeps.

After an update the average is h·average + (1 − h)·weights. So h = 0 follows the weights, h = 1 waits, a constant h is an
exponential moving average, and h = n / (n + 1) at the end of an epoch adds it to a mean of n. Equal to
`torch.optim.swa_utils.AveragedModel` with `use_buffers=True`. Reference: Izmailov et al., "Averaging weights leads to wider
optima and better generalization" (UAI 2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.spec import Recipe


def holds(recipe: Recipe, epoch: int, epochs: int, updates: int) -> NDArray[np.float32]:
    """(updates,) shares h of the average that the updates of ``epoch`` (0-based, of ``epochs``) keep."""
    kept = np.zeros(updates, dtype=np.float32)
    match recipe.word("averaging"):
        case "ema":
            kept[:] = recipe.number("ema_decay")
            if epoch == 0:
                kept[0] = 0.0
        case "swa":
            averaged = epoch - min(epochs - 1, round(recipe.number("swa_start") * epochs))
            if averaged > 0:
                kept[:] = 1.0
                kept[-1] = averaged / (averaged + 1)
    return kept

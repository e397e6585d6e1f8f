"""What a recipe does to a training batch: augmentation, mixing of pairs, noise, masking.

Shapes: `b` examples. Pairs are an example and the one before it, for batches are in random order.
References: Zhang et al., "mixup" (ICLR 2018); Yun et al., "CutMix" (ICCV 2019), for rows of tables as in Kadra et al.,
"Well-tuned simple nets excel on tabular datasets" (NeurIPS 2021); Bishop, "Training with noise is equivalent to Tikhonov
regularization" (1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .augmentation import AUGMENTATIONS, SLOTS, augmented, cut_mixed
from .chance import Chance


def changed(
    x: Tensor, recipe: Mapping[str, Any], chance: Chance, sources: Sequence[int] = ()
) -> tuple[Tensor, Tensor | None]:
    """The batch (b, ...) as this update shows it, and the share () of every example's own label where pairs are mixed.

    ``sources`` are the columns of the data that the inputs of rows of a table come from.
    """
    strengths = {name: torch.full((len(x),), recipe[name]) for name in AUGMENTATIONS if recipe.get(name)}
    if strengths:
        numbers = chance.uniform("augmentation", (len(x), len(SLOTS)))
        x = augmented(
            x, {name: each.to(x.device) for name, each in strengths.items()}, dict(zip(SLOTS, numbers.T, strict=True))
        )
    x, share = _mixed(x, recipe, chance, sources)
    if deviation := recipe.get("input_noise"):
        x = x + deviation * chance.normal("input_noise", tuple(x.shape))
    if rate := recipe.get("feature_masking"):
        x = x * (chance.uniform("feature_masking", tuple(x.shape)) >= rate)
    return x, share


def row_mixed(x: Tensor, other: Tensor, share: Tensor, numbers: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a table with some columns of ``other``, and the share of their own columns, which is their label's share.

    Args:
        x, other: (..., n, d).
        share: (...) wanted of x; at 1 nothing is changed. The columns are the same for the whole batch.
        numbers: (..., c) in [0, 1); a column is of ``other`` where its number is not below the share.
        sources: (d,) the column that each input comes from.
    """
    taken = numbers >= share[..., None]
    mixed = torch.where(taken[..., sources][..., None, :], other, x)
    return mixed, 1.0 - taken.to(x.dtype).mean(-1)


def _mixed(x: Tensor, recipe: Mapping[str, Any], chance: Chance, sources: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Mixup or cutmix; a recipe with both on draws one of them for every batch."""
    mixup, cutmix = recipe.get("mixup"), recipe.get("cutmix")
    if mixup and cutmix:
        heads = bool(chance.uniform("coin", ()) < 0.5)
        mixup, cutmix = (None, cutmix) if heads else (mixup, None)
    if mixup:
        share = chance.beta("mixup", mixup)
        return torch.where(share < 1.0, share * x + (1.0 - share) * x.roll(1, 0), x), share
    if cutmix and x.ndim == 2:
        numbers = chance.uniform("patch", (len(set(sources)),))
        own = torch.tensor(sources, device=x.device)
        return row_mixed(x, x.roll(1, 0), chance.beta("cutmix", cutmix), numbers, own)
    if cutmix:
        across, down = chance.uniform("patch", (2,))
        return cut_mixed(x, x.roll(1, 0), chance.beta("cutmix", cutmix), across, down)
    return x, None

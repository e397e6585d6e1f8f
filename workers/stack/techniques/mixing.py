"""Pairs of examples mixed: mixup of all inputs, cutmix of a patch of images or of some columns of a table's rows; a lane
with both on draws one for every batch.

A pair is an example and the one before it, for batches are in random order. The share of a pair's first example is drawn
from Beta(α, α) once per batch, by inversion of a table of quantiles that is the lane's column.
References: Zhang et al., "mixup" (ICLR 2018); Yun et al., "CutMix" (ICCV 2019).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from service.spec import Recipe
from workers.plain.augmentation import cut_mixed
from workers.plain.batches import row_mixed
from workers.stack.hashing import combine, draw, uniform
from workers.stack.techniques.base import Batch, Columns, Technique

_QUANTILES = 513
_PLACE = 0x9C7
"""Makes the key of the patch's place from that of cutmix."""


@lru_cache(maxsize=4096)
def beta_quantiles(alpha: float) -> Tensor:
    """(q,) quantiles of Beta(α, α) at even steps; all 1, no mixing, for α = 0."""
    if alpha == 0:
        return torch.ones(_QUANTILES)
    steps = np.linspace(0.0, 1.0, _QUANTILES)
    return torch.from_numpy(beta.ppf(steps, alpha, alpha).astype(np.float32))


def shares(quantiles: Tensor, keys: Tensor) -> Tensor:
    """(k,) shares of the first example of each pair, of quantiles (k, q) and int32 keys (k,)."""
    position = uniform(draw(keys, torch.zeros_like(keys))) * (_QUANTILES - 1)
    below = position.to(torch.int64)
    left, right = quantiles.gather(1, below[:, None])[:, 0], quantiles.gather(1, below[:, None] + 1)[:, 0]
    return left + (right - left) * (position - below)


def partner(batch: Tensor) -> Tensor:
    """The second of every pair (k, b, ...)."""
    return batch.roll(1, dims=1)


def mixed(batch: Tensor, share: Tensor) -> Tensor:
    """Every example with its partner; ``share`` (k,) is that of the first."""
    first = share.view(-1, *[1] * (batch.ndim - 1))
    # Where nothing is mixed not even the partner's padding is, which is NaN in series.
    return torch.where(first < 1.0, first * batch + (1.0 - first) * partner(batch), batch)


class _Mixing(Technique):
    def blank(self, k: int, classes: int) -> Columns:
        """(k, q) quantiles of a share that is always 1."""
        return {self.name: beta_quantiles(0.0).repeat(k, 1)}

    def load(self, columns: Columns, lane: int, recipe: Recipe, balance: Tensor) -> None:
        """The quantiles of the recipe's α."""
        columns[self.name][lane] = beta_quantiles(recipe.number(self.name)).to(columns[self.name].device)

    def _share(self, batch: Batch, on: frozenset[str]) -> Tensor:
        """(k,) this one's shares: 1 in lanes where the toss of a coin gives the batch to the other one."""
        own = shares(batch.columns[self.name], batch.key(self.name))
        if not {"mixup", "cutmix"} <= on:
            return own
        other_name = "cutmix" if self.name == "mixup" else "mixup"
        other = shares(batch.columns[other_name], batch.key(other_name))
        keys = batch.key("cutmix")
        heads = uniform(draw(keys, torch.ones_like(keys))) < 0.5  # then it is cutmix
        lost = (own < 1.0) & (other < 1.0) & (heads if self.name == "mixup" else ~heads)
        return own.masked_fill(lost, 1.0)


class Mixup(_Mixing):
    """All inputs of a pair, before cutmix."""

    name = "mixup"
    order = 30

    def on_batch(self, batch: Batch, on: frozenset[str]) -> None:
        """Mix the examples, and note the share of their own labels."""
        batch.share = self._share(batch, on)
        batch.x = mixed(batch.x, batch.share)


class Cutmix(_Mixing):
    """A patch of a pair of images, or some columns of a pair of rows, after mixup."""

    name = "cutmix"
    order = 31

    def on_batch(self, batch: Batch, on: frozenset[str]) -> None:
        """Cut the patch or the columns, and note the share of pixels or columns that stay."""
        keys = combine(batch.key("cutmix"), _PLACE)
        count = 2 if batch.sources is None else batch.data_columns
        numbers = uniform(draw(keys[:, None], torch.arange(count, dtype=torch.int32, device=keys.device)[None]))
        wanted, other = self._share(batch, on), partner(batch.x)
        if batch.sources is not None:
            batch.x, share = row_mixed(batch.x, other, wanted, numbers, batch.sources)
        else:
            batch.x, share = cut_mixed(batch.x, other, wanted, *numbers.unbind(1))
        batch.share = share if batch.share is None else batch.share * share


TECHNIQUES = (Mixup(), Cutmix())

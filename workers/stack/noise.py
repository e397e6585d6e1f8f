"""Noise on the batches of every lane, a hash of the lane's seed, the update and the element; nothing is drawn in turn.

Shapes: `k` lanes, `b` examples of a batch. What a lane has off is multiplied by 0 or 1, and changes nothing.
References: Zhang et al., "mixup" (ICLR 2018); Bishop, "Training with noise is equivalent to Tikhonov regularization" (1995).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from workers.stack.hashing import draw, normal, uniform

NOISES = ("cutmix", "mixup", "input_noise", "feature_masking")
"""Every one has a key of its own in each update, in this order."""

_QUANTILES = 513


def key_of(noise: str, keys: Tensor) -> Tensor:
    """(k,) keys of one noise among those of an update (k, L + len(NOISES)), where noises come last."""
    return keys[:, NOISES.index(noise) - len(NOISES)]


@lru_cache(maxsize=4096)
def mixup_quantiles(alpha: float) -> Tensor:
    """(q,) quantiles of Beta(α, α) at even steps; all 1, no mixing, for α = 0."""
    if alpha == 0:
        return torch.ones(_QUANTILES)
    steps = np.linspace(0.0, 1.0, _QUANTILES)
    return torch.from_numpy(beta.ppf(steps, alpha, alpha).astype(np.float32))


def mixup_shares(quantiles: Tensor, keys: Tensor) -> Tensor:
    """(k,) shares of the first example of each pair, by inversion of the distribution function.

    Args:
        quantiles: (k, q), each row as `mixup_quantiles` makes it.
        keys: (k,) int32.
    """
    position = uniform(draw(keys, torch.zeros_like(keys))) * (_QUANTILES - 1)
    below = position.to(torch.int64)
    left, right = quantiles.gather(1, below[:, None])[:, 0], quantiles.gather(1, below[:, None] + 1)[:, 0]
    return left + (right - left) * (position - below)


def either(mixup: Tensor, cutmix: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """(k,) shares of both, one of them made 1 by the toss of a coin where neither is."""
    both = (mixup < 1.0) & (cutmix < 1.0)
    heads = uniform(draw(keys, torch.ones_like(keys))) < 0.5
    return mixup.masked_fill(both & heads, 1.0), cutmix.masked_fill(both & ~heads, 1.0)


def partner(batch: Tensor) -> Tensor:
    """The second of every pair: the next example of the batch, which is in random order; (k, b, ...)."""
    return batch.roll(1, dims=1)


def mixed(batch: Tensor, shares: Tensor) -> Tensor:
    """Every example with its partner; ``shares`` (k,) are those of the first."""
    first = shares.view(-1, *[1] * (batch.ndim - 1))
    # Where nothing is mixed not even the partner's padding is, which is NaN in series.
    return torch.where(first < 1.0, first * batch + (1.0 - first) * partner(batch), batch)


def with_gaussian_noise(x: Tensor, deviation: Tensor, keys: Tensor) -> Tensor:
    """X + ``deviation`` (k,) · N(0, 1), for every element."""
    element = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device)
    return x + (deviation[:, None] * normal(keys[:, None], element[None])).view(x.shape)


def with_masked_features(x: Tensor, rate: Tensor, keys: Tensor) -> Tensor:
    """Every element set to zero with probability ``rate`` (k,)."""
    element = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device)
    keep = uniform(draw(keys[:, None], element[None])) >= rate[:, None]
    return x * keep.view(x.shape)

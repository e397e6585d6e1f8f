"""Dropout whose rate and random numbers are one lane's own: what a stack hands to its network.

Shapes: any, and images (b, c, h, w) where whole channels are dropped; under `vmap` every buffer is one lane's.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from workers.stack.hashing import combine, happens


class LaneDropout(nn.Module):
    """Zero each activation with probability ``rate`` and rescale the rest; identity in eval mode.

    The mask is a hash of ``key`` (one per lane and update) and the element's index, so a lane drops the same units
    whatever its neighbours are. Both are buffers, not attributes: stacking k networks gives each lane its own. ``active``
    is for all lanes: off, no mask is computed, which is the same as a rate of 0 in every lane.

    Args:
        setting, layer: Whose rate it is, and of which hidden layer (see `workers.plain.layers.MakesDropout`).
        channels: Whether it drops whole channels of images, as `nn.Dropout2d`.
    """

    rate: Tensor
    key: Tensor

    def __init__(self, setting: str, layer: int = 0, *, channels: bool = False) -> None:
        super().__init__()
        self.setting, self.layer, self.channels = setting, layer, channels
        self.active = True
        self.calls: int | None = None
        """Of this pass so far, in a network that calls it several times and sets it to 0 before."""
        self.register_buffer("rate", torch.zeros(()), persistent=False)
        self.register_buffer("key", torch.zeros((), dtype=torch.int32), persistent=False)

    @property
    def p(self) -> float:
        """The rate, as `nn.Dropout` names it."""
        return float(self.rate)

    @p.setter
    def p(self, rate: float) -> None:
        self.rate.fill_(rate)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if not (self.training and self.active):
            return x
        shape = (*x.shape[:2], *(1 for _ in x.shape[2:])) if self.channels else x.shape
        chance, key = 1.0 - self.rate, self.key
        if self.calls is not None:
            key = key ^ _of_call(self.calls)
            self.calls += 1
        keep = happens(chance, key, math.prod(shape)).view(shape)
        return x * (keep * (1.0 / chance))  # as `nn.Dropout` does; `torch.where` takes four times as long on a CPU


@functools.cache
def _of_call(number: int) -> int:
    """What the key of a pass is changed by in its call ``number``, in one step that can't overflow (see `hashing.draw`)."""
    return int(combine(np.zeros(1, dtype=np.int32), np.array([number], dtype=np.int32))[0]) if number else 0

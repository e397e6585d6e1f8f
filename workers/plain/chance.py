"""The random numbers of one training run, all that is not dropout: order, noise, mixing.

`Chance` draws them from torch's own generators, as an ordinary program does. The tests hand in one that gives the numbers
of a lane instead, for without them no two training runs are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Chance:
    """Seeds torch's generators when it is made, those of dropout included."""

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        torch.manual_seed(seed)
        self._device = device

    def begin(self, update: int, part: int | None) -> None:
        """An update (0-based) begins, or a part of it where it is trained in several; these numbers need not know."""

    def order(self, epoch: int, rows: int) -> Tensor:
        """(rows,) int64: the order in which ``epoch`` sees its rows."""
        return torch.randperm(rows, device=self._device)

    def uniform(self, what: str, shape: tuple[int, ...]) -> Tensor:
        """Independent numbers in [0, 1)."""
        return torch.rand(shape, device=self._device)

    def normal(self, what: str, shape: tuple[int, ...]) -> Tensor:
        """Independent standard normal numbers."""
        return torch.randn(shape, device=self._device)

    def beta(self, what: str, alpha: float) -> Tensor:
        """() from Beta(α, α)."""
        concentration = torch.tensor(alpha, device=self._device)
        return torch.distributions.Beta(concentration, concentration).sample()

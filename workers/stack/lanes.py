"""What a lane has of its own: its hyperparameters as columns, its state as rows.

Shapes: `k` lanes, `P` parameters, `Q` statistics, `L` dropout layers. Every hyperparameter is a column (k, ...), so lanes
with different settings share each kernel. What techniques are, and their columns, stands in `workers.stack.techniques`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from service.spec import Recipe
from workers.stack.techniques import TECHNIQUES, Columns


def blank_columns(k: int, dropouts: int, device: torch.device, *, classes: int = 1) -> Columns:
    """Columns of k idle lanes.

    Beside those of the techniques: ``dropout`` (k, L) rates; ``seed`` (k,) int32; ``momentum`` (k,); ``rest1``, ``rest2``
    (k,), the complements 1 − β of Adam's β, which float32 holds more exactly.
    """
    columns: Columns = {
        "dropout": torch.zeros(k, dropouts),
        "seed": torch.zeros(k, dtype=torch.int32),
        "momentum": torch.zeros(k),
        "rest1": torch.ones(k),
        "rest2": torch.ones(k),
    }
    for technique in TECHNIQUES:
        columns |= technique.blank(k, classes)
    return {name: column.to(device) for name, column in columns.items()}


def load_columns(
    columns: Columns, lane: int, recipe: Recipe, *, rates: Sequence[float], seed: int, balance: Tensor | None = None
) -> None:
    """Write a recipe's values, and its dropout ``rates`` (L,), into the columns of ``lane``.

    ``balance`` (c,) are the weights that make the classes of the lane's training rows count alike; of labels (2·t,).
    """
    columns["dropout"][lane] = torch.tensor(list(rates))
    columns["seed"][lane] = seed
    columns["momentum"][lane] = recipe.number("momentum")
    columns["rest1"][lane] = 1.0 - recipe.number("adam_beta1")
    columns["rest2"][lane] = 1.0 - recipe.number("adam_beta2")
    even = torch.ones_like(columns["class_weights"][lane]) if balance is None else balance
    for technique in TECHNIQUES:
        technique.load(columns, lane, recipe, even)


def select_columns(columns: Columns, lanes: Tensor) -> Columns:
    """The columns of the named lanes."""
    return {name: column[lanes] for name, column in columns.items()}


def joined_columns(columns: Columns, others: Columns) -> Columns:
    """The columns of some lanes, then those of others."""
    return {name: torch.cat([column, others[name]]) for name, column in columns.items()}


_LANES_SECOND = ("mean_weights", "mean_stats")


@dataclass
class LaneState:
    """What an update changes: ``weights`` (k, P), ``stats`` (k, Q), ``updates`` (k,) done, and what the optimizer remembers.

    ``first`` and ``second`` are (k, P) or, where the optimizer has no such moment, (k, 0).
    In a stack with averaging, ``mean_weights`` (1, k, P) and ``mean_stats`` (1, k, Q); else these have no rows at all.
    """

    weights: Tensor
    first: Tensor
    second: Tensor
    stats: Tensor
    updates: Tensor
    mean_weights: Tensor
    mean_stats: Tensor

    @classmethod
    def zeros(
        cls, k: int, *, parameters: int, statistics: int, moments: int, averaging: bool, device: torch.device
    ) -> LaneState:
        """Rows for k idle lanes: zero weights stay zero under any update with learning rate 0."""
        return cls(
            weights=torch.zeros(k, parameters, device=device),
            first=torch.zeros(k, parameters * (moments >= 1), device=device),
            second=torch.zeros(k, parameters * (moments >= 2), device=device),
            stats=torch.zeros(k, statistics, device=device),
            updates=torch.zeros(k, dtype=torch.int32, device=device),
            mean_weights=torch.zeros(int(averaging), k, parameters, device=device),
            mean_stats=torch.zeros(int(averaging), k, statistics, device=device),
        )

    @property
    def moments(self) -> list[Tensor]:
        """The moments that the optimizer has."""
        return [moment for moment in (self.first, self.second) if moment.shape[1]]

    def evaluated(self) -> tuple[Tensor, Tensor]:
        """The weights (k, P) and statistics (k, Q) that count: the averages where there are any."""
        return (self.mean_weights[0], self.mean_stats[0]) if len(self.mean_weights) else (self.weights, self.stats)

    def with_averages(self) -> LaneState:
        """The same state with averages, which so far are the weights themselves."""
        return replace(self, mean_weights=self.weights.clone()[None], mean_stats=self.stats.clone()[None])

    def copy(self) -> LaneState:
        """The same state in memory of its own."""
        return LaneState(*(value.clone() for value in vars(self).values()))

    def select(self, lanes: Tensor) -> LaneState:
        """The rows of the named lanes, in that order."""
        return LaneState(**{name: value.index_select(_lane_dim(name), lanes) for name, value in vars(self).items()})

    def followed_by(self, other: LaneState) -> LaneState:
        """These lanes, then those of ``other``."""
        both = {name: (value, getattr(other, name)) for name, value in vars(self).items()}
        return LaneState(**{name: torch.cat(pair, dim=_lane_dim(name)) for name, pair in both.items()})

    def lane(self, lane: int) -> dict[str, Tensor]:
        """One lane's state, on the CPU."""
        return {name: value.select(_lane_dim(name), lane).cpu().clone() for name, value in vars(self).items()}

    def load(self, lane: int, state: Mapping[str, Tensor]) -> None:
        """Bring a lane to a ``state`` that `lane` gave; averages, if only this stack has them, to its weights."""
        for name, value in vars(self).items():
            rows = value.select(_lane_dim(name), lane)
            saved = state[name]
            if name in ("mean_weights", "mean_stats"):
                saved = saved if len(saved) == len(rows) else state[name.removeprefix("mean_")].expand_as(rows)
            rows.copy_(saved)


def _lane_dim(name: str) -> int:
    return 1 if name in _LANES_SECOND else 0

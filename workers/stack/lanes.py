"""What a lane has of its own: its hyperparameters as columns, its state as rows, and the techniques that it has on.

Shapes: `k` lanes, `P` parameters, `Q` statistics, `L` dropout layers, `m` moments. Every hyperparameter is a (k,) column,
so lanes with different settings share each kernel. A *technique* is a part of the update that lanes without it can do
without: a stack computes it only once one of its lanes has it on, and for the others its neutral value changes nothing,
not even in the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from service.spec import SETTINGS, Domain, Recipe
from service.spec.domain import can_leave
from workers.stack.augmentation import AUGMENTATIONS

TECHNIQUES = ("l1", "l2", "weight_decay", "proximal_l1", "max_norm", "clip_norm", "clip_value", "nesterov")
"""Settings that cost nothing in a stack whose lanes all have them at their neutral value."""

_ALL = (*TECHNIQUES, *AUGMENTATIONS)
_INFINITE_WHEN_OFF = ("max_norm", "clip_norm", "clip_value")
_PLAIN = ("l1", "l2", "weight_decay", "proximal_l1", "momentum", "nesterov")


def techniques_of(recipes: Iterable[Recipe]) -> frozenset[str]:
    """The techniques that at least one of the recipes has on."""
    return frozenset(name for recipe in recipes for name in _ALL if recipe[name] != SETTINGS[name].neutral)


def techniques_in(domains: Mapping[str, Domain]) -> frozenset[str]:
    """The techniques that some recipe of a study's ``domains`` may have on."""
    return frozenset(name for name in _ALL if name in domains and can_leave(domains[name], SETTINGS[name].neutral))


@dataclass
class LaneHyper:
    """Per-lane hyperparameters, each (k,), but ``dropout`` (k, L) and ``augmentation`` (k, len(AUGMENTATIONS)).

    Limits (``max_norm``, ``clip_norm``, ``clip_value``) are infinite where off. Adam's β come as their complements 1 − β,
    which float32 holds more exactly.
    """

    l1: Tensor
    l2: Tensor
    weight_decay: Tensor
    proximal_l1: Tensor
    max_norm: Tensor
    clip_norm: Tensor
    clip_value: Tensor
    momentum: Tensor
    nesterov: Tensor
    rest1: Tensor
    rest2: Tensor
    augmentation: Tensor
    dropout: Tensor
    seed: Tensor

    @classmethod
    def zeros(cls, k: int, dropouts: int, device: torch.device) -> LaneHyper:
        """Columns for k idle lanes."""
        columns = {field.name: torch.zeros(k, device=device) for field in fields(cls)}
        columns |= {name: torch.ones(k, device=device) for name in ("rest1", "rest2")}
        columns["augmentation"] = torch.zeros(k, len(AUGMENTATIONS), device=device)
        columns["dropout"] = torch.zeros(k, dropouts, device=device)
        columns["seed"] = torch.zeros(k, dtype=torch.int32, device=device)
        return cls(**columns)

    def load(self, lane: int, recipe: Recipe, *, rates: Sequence[float], seed: int) -> None:
        """Write a recipe's values, and the dropout ``rates`` (L,) it comes to, into the columns of ``lane``."""
        self.dropout[lane] = torch.tensor(list(rates))
        self.seed[lane] = seed
        self.augmentation[lane] = torch.tensor([recipe.number(name) for name in AUGMENTATIONS])
        for name in _PLAIN:
            getattr(self, name)[lane] = recipe.number(name)
        for name in _INFINITE_WHEN_OFF:
            getattr(self, name)[lane] = recipe.number(name) or torch.inf
        self.rest1[lane] = 1.0 - recipe.number("adam_beta1")
        self.rest2[lane] = 1.0 - recipe.number("adam_beta2")

    def select(self, lanes: Tensor) -> LaneHyper:
        """The columns of the named lanes."""
        return LaneHyper(**{field.name: getattr(self, field.name)[lanes] for field in fields(self)})

    def followed_by(self, other: LaneHyper) -> LaneHyper:
        """These lanes, then those of ``other``."""
        return LaneHyper(**{name: torch.cat([value, getattr(other, name)]) for name, value in vars(self).items()})


@dataclass
class LaneState:
    """What an update changes: ``weights`` (k, P), ``moments`` (m, k, P), ``stats`` (k, Q), ``updates`` (k,) done."""

    weights: Tensor
    moments: Tensor
    stats: Tensor
    updates: Tensor

    def copy(self) -> LaneState:
        """The same state in memory of its own."""
        return LaneState(*(value.clone() for value in vars(self).values()))

    def select(self, lanes: Tensor) -> LaneState:
        """The rows of the named lanes, in that order."""
        return LaneState(self.weights[lanes], self.moments[:, lanes], self.stats[lanes], self.updates[lanes])

    def followed_by(self, other: LaneState) -> LaneState:
        """These lanes, then those of ``other``."""
        return LaneState(
            torch.cat([self.weights, other.weights]),
            torch.cat([self.moments, other.moments], dim=1),
            torch.cat([self.stats, other.stats]),
            torch.cat([self.updates, other.updates]),
        )

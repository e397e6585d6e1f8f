"""What a lane has of its own: its hyperparameters as columns, its state as rows, and the techniques that it has on.

Shapes: `k` lanes, `P` parameters, `Q` statistics, `L` dropout layers. Every hyperparameter is a (k,) column,
so lanes with different settings share each kernel. A *technique* is a part of the update that lanes without it can do
without: a stack computes it only once one of its lanes has it on, and for the others its neutral value changes nothing,
not even in the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from service.spec import SETTINGS, Domain, Recipe
from service.spec.domain import can_leave, possible_values
from workers.stack.augmentation import AUGMENTATIONS
from workers.stack.noise import mixup_quantiles

TECHNIQUES = (
    "l1", "l2", "weight_decay", "proximal_l1", "max_norm", "clip_norm", "clip_value", "nesterov",
    "label_smoothing", "mixup", "cutmix", "input_noise", "feature_masking", "class_weights", "averaging",
)  # fmt: skip
"""Settings that cost nothing in a stack whose lanes all have them at their neutral value."""

FROZEN = "frozen"
"""The technique of lanes that train their last layer only."""

_ALL = (*TECHNIQUES, *AUGMENTATIONS)
_INFINITE_WHEN_OFF = ("max_norm", "clip_norm", "clip_value")
_PLAIN = (
    "l1", "l2", "weight_decay", "proximal_l1", "momentum", "nesterov", "label_smoothing", "input_noise", "feature_masking",
)  # fmt: skip


def techniques_of(recipes: Iterable[Recipe]) -> frozenset[str]:
    """The techniques that at least one of the recipes has on."""
    recipes = list(recipes)
    frozen = frozenset({FROZEN}) if any(recipe.word("fine_tune") == "head" for recipe in recipes) else frozenset[str]()
    return frozen | frozenset(name for recipe in recipes for name in _ALL if recipe[name] != SETTINGS[name].neutral)


def techniques_in(domains: Mapping[str, Domain]) -> frozenset[str]:
    """The techniques that some recipe of a study's ``domains`` may have on."""
    tuned = domains.get("fine_tune")
    can_freeze = tuned is not None and "head" in (possible_values(tuned) or ())
    frozen = frozenset({FROZEN}) if can_freeze else frozenset[str]()
    return frozen | frozenset(name for name in _ALL if name in domains and can_leave(domains[name], SETTINGS[name].neutral))


@dataclass
class LaneHyper:
    """Per-lane hyperparameters, each (k,), but ``dropout`` (k, L), ``augmentation`` (k, len(AUGMENTATIONS)),
    ``class_weights`` (k, c), and ``mixup`` and ``cutmix``, quantiles of their distributions (k, q).

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
    label_smoothing: Tensor
    input_noise: Tensor
    feature_masking: Tensor
    mixup: Tensor
    cutmix: Tensor
    augmentation: Tensor
    class_weights: Tensor
    dropout: Tensor
    seed: Tensor
    frozen: Tensor
    """1.0 where only the last layer trains."""

    @classmethod
    def zeros(cls, k: int, dropouts: int, device: torch.device, *, classes: int = 1) -> LaneHyper:
        """Columns for k idle lanes."""
        columns = {field.name: torch.zeros(k, device=device) for field in fields(cls)}
        columns |= {name: torch.ones(k, device=device) for name in ("rest1", "rest2")}
        columns |= {name: mixup_quantiles(0.0).to(device).repeat(k, 1) for name in ("mixup", "cutmix")}
        columns["augmentation"] = torch.zeros(k, len(AUGMENTATIONS), device=device)
        columns["class_weights"] = torch.ones(k, classes, device=device)
        columns["dropout"] = torch.zeros(k, dropouts, device=device)
        columns["seed"] = torch.zeros(k, dtype=torch.int32, device=device)
        return cls(**columns)

    def load(self, lane: int, recipe: Recipe, *, rates: Sequence[float], seed: int, balance: Tensor | None = None) -> None:
        """Write a recipe's values, and the dropout ``rates`` (L,) it comes to, into the columns of ``lane``.

        ``balance`` (c,) are the weights that make the classes of the lane's training rows count alike.
        """
        blend = recipe.number("class_weights")
        self.class_weights[lane] = 1.0 if balance is None else 1.0 - blend + blend * balance
        self.dropout[lane] = torch.tensor(list(rates))
        self.seed[lane] = seed
        self.frozen[lane] = float(recipe.word("fine_tune") == "head")
        for name in ("mixup", "cutmix"):
            getattr(self, name)[lane] = mixup_quantiles(recipe.number(name)).to(self.mixup.device)
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

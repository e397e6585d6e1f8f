"""What a technique is to a stack.

An update comes to the techniques that are on in their `order`, at each of these places in turn:

    on_batch      changes the examples of a `Batch`, before the forward pass
    on_losses     changes the losses of its examples
    on_gradient   changes the gradient of a `Step`
    before_step   changes the weights before the optimizer's step
    after_step    changes them after it
    after_update  changes whatever else a lane's state holds

Shapes: `k` lanes, `b` examples of a batch, `o` outputs, `P` parameters, `L` dropout layers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from service.spec import SETTINGS, Domain, Recipe
from service.spec.domain import can_leave
from workers.stack.hashing import combine, draw, normal, uniform

if TYPE_CHECKING:
    from workers.stack.lanes import LaneState

Columns = dict[str, Tensor]
"""Per-lane hyperparameters by name, each (k, ...)."""

OLD_KEYS = ("cutmix", "mixup", "input_noise", "feature_masking")
"""Techniques with a key of their own at the end of the keys of an update, in this order; the others make theirs from a
salt.
"""


SALTS = {"augmentation": 0xA06}
"""What makes a technique's key; of others it is a checksum of the name."""


def key_of(name: str, keys: Tensor) -> Tensor:
    """(k,) int32 keys of the random numbers of the technique ``name``, of an update's keys (k, L + len(OLD_KEYS)).

    They depend on the name and on nothing else, so that a further technique changes none of the others' numbers.
    """
    if name in OLD_KEYS:
        return keys[:, OLD_KEYS.index(name) - len(OLD_KEYS)]
    return combine(keys[:, 0], SALTS.get(name, zlib.crc32(name.encode()) & 0x7FFFFFFF))


@dataclass
class Batch:
    """``x (k, b, ...)``, ``y (k, b)``, or ``(k, b, t)`` of several targets, and ``keys (k, L + len(OLD_KEYS))`` int32 of
    one update.

    ``share`` (k,) is that of every example's own label, where examples are mixed; ``weights`` (k, b) multiply the losses.
    ``sources`` (d,) are the columns of the data, out of ``data_columns``, that the inputs of a table's rows come from.
    """

    x: Tensor
    y: Tensor
    columns: Columns
    keys: Tensor
    share: Tensor | None = None
    weights: Tensor | None = None
    sources: Tensor | None = None
    data_columns: int = 0

    def key(self, name: str) -> Tensor:
        """(k,) int32 keys of the random numbers of the technique ``name``."""
        return key_of(name, self.keys)

    def uniform(self, name: str) -> Tensor:
        """Numbers in [0, 1) in the shape of ``x``."""
        return uniform(draw(self.key(name)[:, None], self._elements()[None])).view(self.x.shape)

    def normal(self, name: str) -> Tensor:
        """Standard normal numbers in the shape of ``x``."""
        return normal(self.key(name)[:, None], self._elements()[None]).view(self.x.shape)

    def _elements(self) -> Tensor:
        return torch.arange(self.x[0].numel(), dtype=torch.int32, device=self.x.device)


@dataclass
class Step:
    """``gradient (k, P)``, which is changed in place, and all that the optimizer's step needs.

    ``lr``, ``hold`` (k,); ``penalized``, ``body`` (P,) are 1.0 on weights (not on biases and normalizations), and before the
    last layer; ``factors`` (P,) multiply the learning rate, None if all are 1; ``units`` are (first, end, count) of every
    layer's weights in a row, and of how many units they are.
    """

    gradient: Tensor
    state: LaneState
    columns: Columns
    lr: Tensor
    hold: Tensor
    keys: Tensor
    penalized: Tensor
    body: Tensor
    units: Sequence[tuple[int, int, int]]
    factors: Tensor | None = None
    anchor: Tensor | None = None
    saved: dict[str, Tensor] = field(default_factory=dict)
    """What a technique keeps from one place to another."""

    @property
    def weights(self) -> Tensor:
        """(k, P), which is changed in place."""
        return self.state.weights

    @property
    def rates(self) -> Tensor:
        """(k, 1) or, with factors, (k, P) learning rates."""
        return self.lr[:, None] if self.factors is None else self.lr[:, None] * self.factors

    def column(self, name: str) -> Tensor:
        """(k, 1) of a column (k,)."""
        return self.columns[name][:, None]

    def normal(self, name: str) -> Tensor:
        """Standard normal numbers of the technique ``name`` in the shape of ``gradient``."""
        element = torch.arange(self.gradient.shape[1], dtype=torch.int32, device=self.gradient.device)
        return normal(key_of(name, self.keys)[:, None], element[None])


def per_lane(column: Tensor, losses: Tensor) -> Tensor:
    """A column (k,) for losses (k, b), or (k, b, t)."""
    return column.view(-1, *[1] * (losses.ndim - 1))


class Technique:
    """A technique of one setting, whose column (k,) has that setting's values. Holds no state."""

    name: ClassVar[str]
    order: ClassVar[int] = 50
    """Its turn at each place; among equals the file's name decides."""
    off: ClassVar[float] = 0.0
    """The column's value where it is off."""
    makes_zeros: ClassVar[bool] = False
    """It makes weights exactly zero, so lanes that have it on report their sparsity."""

    def is_on(self, recipe: Recipe) -> bool:
        """Whether a lane with this recipe has it on."""
        return recipe[self.name] != SETTINGS[self.name].neutral

    def can_be_on(self, domains: Mapping[str, Domain]) -> bool:
        """Whether some recipe of these domains has it on."""
        return self.name in domains and can_leave(domains[self.name], SETTINGS[self.name].neutral)

    def blank(self, k: int, classes: int) -> Columns:
        """The columns of k lanes that have it off, on the CPU; with several labels each has two ``classes``."""
        return {self.name: torch.full((k,), self.off)}

    def load(self, columns: Columns, lane: int, recipe: Recipe, balance: Tensor) -> None:
        """Write a recipe's values into the columns of ``lane``.

        ``balance`` (classes,) are the weights that make the classes of its training rows count alike.
        """
        columns[self.name][lane] = recipe.number(self.name) or self.off

    def on_batch(self, batch: Batch, on: frozenset[str]) -> None:
        """Change the examples; ``on`` are the techniques of the stack."""

    def on_losses(self, losses: Tensor, out: Tensor, labels: Tensor, columns: Columns, on: frozenset[str]) -> Tensor:
        """The losses (k, b) of outputs (k, b, o) and labels (k, b), as this technique counts them.

        Of several targets: losses (k, b, t), whose mean will be an example's, and labels (k, b, t).
        """
        return losses

    def on_gradient(self, step: Step) -> None:
        """Change the gradient."""

    def before_step(self, step: Step) -> None:
        """Change the weights before the optimizer's step."""

    def after_step(self, step: Step) -> None:
        """Change the weights after the optimizer's step."""

    def after_update(self, step: Step) -> None:
        """Change what else the state holds."""

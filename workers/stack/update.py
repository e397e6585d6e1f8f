"""The update: the gradient, the optimizer's step, and the techniques around both, of all lanes as one function.

Shapes: `k` lanes, `b` examples, `P` parameters, `Q` statistics, `L` dropout layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.stack.crew import Crew
from workers.stack.flat import FlatModel
from workers.stack.gradient import Gradient
from workers.stack.lanes import LaneState
from workers.stack.optimizers import RULES
from workers.stack.techniques import TECHNIQUES, Columns, Step


class Update:
    """One optimizer update of every lane, in place. Holds no lane state of its own.

    It computes the ``techniques`` it is made with and no others (see `workers.stack.techniques`).
    """

    def __init__(
        self,
        model: FlatModel,
        optimizer: str,
        task: str,
        techniques: frozenset[str],
        *,
        micro_batches: int = 1,
        mixed_precision: bool = False,
        crew: Crew | None = None,
    ) -> None:
        self.rule = RULES[optimizer]
        self.gradient = Gradient(
            model, task, techniques, micro_batches=micro_batches, mixed_precision=mixed_precision, crew=crew
        )
        self.penalized = model.penalty_mask()
        self._on = [technique for technique in TECHNIQUES if technique.name in techniques]
        self._units = model.units()
        self._body = model.body_mask()
        self._factors = model.lr_factors()
        self.anchor: Tensor | None = None
        """(P,) the weights that fine-tuning begins with; set by the stack, and no part of a program."""

    def __call__(
        self,
        state: LaneState,
        columns: Columns,
        lr: Tensor,
        bias: Tensor,
        hold: Tensor,
        keys: Tensor,
        x: Tensor,
        y: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Train every lane on its own batch ``x (k, b, ...)``, ``y (k, b)``.

        Args:
            state, columns: Of k lanes; the state is changed in place.
            lr: (k,) learning rates of this update.
            bias: (2, k) corrections of Adam's moments (see `bias_corrections`).
            hold: (k,) shares of the average that this update keeps, where there is averaging.
            keys: (k, L + len(OLD_KEYS)) int32 (see `update_keys`).
            x, y: The batches.
            weights: (k, b) by which the losses are multiplied.

        Returns:
            (k,) losses before the update.
        """
        gradient, (losses, stats) = self.gradient(state, columns, keys, x, y, weights)
        with torch.no_grad():
            state.stats.copy_(stats)
            state.updates.add_(1)
            masks = self.penalized, self._body, self._units, self._factors
            self.apply(Step(gradient, state, columns, lr, hold, keys, *masks, anchor=self.anchor), bias)
        return losses

    def apply(self, step: Step, bias: Tensor) -> None:
        """The optimizer's step along the gradient (k, P), which is changed, and the techniques before and after it."""
        for technique in self._on:
            technique.on_gradient(step)
        for technique in self._on:
            technique.before_step(step)
        self.rule.step(step.weights, step.gradient, step.state.moments, step.rates, bias, step.columns)
        for technique in self._on:
            technique.after_step(step)
        for technique in self._on:
            technique.after_update(step)

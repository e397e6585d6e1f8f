"""All that the computations of a stack depend on besides the contents of its tensors, and these computations.

A program is compiled in another process (see `building`), which makes the same computations from the same blueprint.
Shapes: `k` lanes, `b` rows of an update, `r` rows of an evaluation, `L` dropout layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from service.spec import Recipe
from workers.plain.network import Shape
from workers.stack.crew import Crew
from workers.stack.flat import FlatModel
from workers.stack.lanes import LaneState, blank_columns
from workers.stack.optimizers import RULES
from workers.stack.techniques.base import OLD_KEYS, Columns
from workers.stack.techniques.class_weights import weighed_classes
from workers.stack.update import Update

Part = Literal["update", "evaluation"]
PARTS: tuple[Part, ...] = ("update", "evaluation")


@dataclass(frozen=True)
class StackKey:
    """What changes the graph: trials with equal keys share a stack."""

    shape: Shape
    optimizer: str
    batch_size: int
    micro_batches: int = 1
    precision: str = "float32"

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        inputs: tuple[int, ...],
        outputs: int,
        categories: tuple[int, ...] = (),
        several: str | None = None,
    ) -> StackKey:
        """The key of a recipe on data with examples of the shape ``inputs`` (see `Shape.of`)."""
        shape = Shape.of(recipe.effective(), inputs, outputs, categories, several)
        parts, precision = recipe.integer("micro_batches"), recipe.word("precision")
        return cls(shape, recipe.word("optimizer"), recipe.integer("batch_size"), parts, precision)

    @property
    def digest(self) -> str:
        """A short name, the same in every process."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Blueprint:
    """A stack of ``lanes`` lanes: its update of ``batch`` rows each, its evaluation of ``rows`` rows, the same for all
    lanes if ``shared``; with a weight of every row if ``weighted``.
    """

    key: StackKey
    task: str
    outputs: int
    techniques: tuple[str, ...]
    lanes: int
    batch: int
    rows: int
    shared: bool
    weighted: bool = False

    def computation(self, part: Part) -> Callable[..., None]:
        """A function of tensors that writes its results into its arguments, for a CPU."""
        model = FlatModel(self.key.shape, torch.device("cpu"))
        if part == "evaluation":
            model.module.eval()
            return Evaluation(model, shared=self.shared)
        model.module.train()
        return Training(update_of(model, self.key, self.task, frozenset(self.techniques)))

    def example(self, part: Part) -> list[Any]:
        """Arguments in the shapes of ``part``."""
        k, model = self.lanes, FlatModel(self.key.shape, torch.device("cpu"))
        state = LaneState.zeros(
            k,
            parameters=model.parameters,
            statistics=model.statistics,
            moments=RULES[self.key.optimizer].moments,
            averaging="averaging" in self.techniques,
            device=torch.device("cpu"),
        )
        inputs = self.key.shape.inputs
        if part == "evaluation":
            rates, keys = torch.zeros(k, model.dropouts), torch.zeros(k, model.dropouts, dtype=torch.int32)
            x = torch.zeros(*(() if self.shared else (k,)), self.rows, *inputs)
            return [torch.zeros(k, self.rows, self.outputs), *state.evaluated(), rates, keys, x]
        columns = blank_columns(k, model.dropouts, torch.device("cpu"), classes=weighed_classes(self.task, self.outputs))
        several = (self.outputs,) if self.task == "multilabel" or (self.task == "regression" and self.outputs > 1) else ()
        y = torch.zeros(k, self.batch, *several, dtype=torch.float32 if self.task == "regression" else torch.int64)
        keys = torch.zeros(k, model.dropouts + len(OLD_KEYS), dtype=torch.int32)
        lr, hold, bias = torch.zeros(k), torch.zeros(k), torch.ones(2, k)
        weights = [torch.ones(k, self.batch)] if self.weighted else []
        return [state, columns, torch.zeros(k), lr, bias, hold, keys, torch.zeros(k, self.batch, *inputs), y, *weights]


class Training:
    """One update of all lanes, whose losses are added to ``total`` (k,)."""

    def __init__(self, update: Update) -> None:
        self.update = update

    def __call__(self, state: LaneState, columns: Columns, total: Tensor, *batch: Tensor) -> None:
        """See `Update`."""
        total.add_(self.update(state, columns, *batch))


class Evaluation:
    """Outputs of all lanes, which are written into ``out`` (k, r, outputs)."""

    def __init__(self, model: FlatModel, *, shared: bool) -> None:
        self.model = model
        self.shared = shared

    def __call__(self, out: Tensor, weights: Tensor, stats: Tensor, rates: Tensor, keys: Tensor, x: Tensor) -> None:
        """See `FlatModel.forward`."""
        found, _ = self.model.forward(weights, stats, rates, keys, x, shared=self.shared)
        out.copy_(found)


def update_of(model: FlatModel, key: StackKey, task: str, techniques: frozenset[str], crew: Crew | None = None) -> Update:
    """The update of a stack; its gradient is computed by a ``crew`` where there is one."""
    how: dict[str, Any] = {"micro_batches": key.micro_batches, "mixed_precision": key.precision == "bfloat16"}
    return Update(model, key.optimizer, task, techniques, **how, crew=crew)


def tensors_of(arguments: Sequence[Any]) -> list[Tensor]:
    """The tensors of arguments, which are tensors, or dictionaries or dataclasses of tensors."""
    found: list[Tensor] = []
    for each in arguments:
        found += [each] if isinstance(each, Tensor) else (each if isinstance(each, dict) else vars(each)).values()
    return found

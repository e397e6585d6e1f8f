"""A stack: k lanes that train as one model, one epoch at a time.

It knows matrices and lanes by position, nothing of trials, pruning or patience (see `workers.stack.runner`). Inside an epoch
nothing returns to the host. Shapes: `k` lanes, `P` parameters, `Q` statistics, `u` updates per epoch, `b` batch, `n` rows.
Not thread-safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.errors import TrialError
from service.spec import Recipe
from workers.plain.network import adopt, initialize, joined, looks_at_examples
from workers.scoring.metrics import evaluate
from workers.stack.blueprint import Blueprint, Part, StackKey, tensors_of, update_of
from workers.stack.crew import SEPARATE
from workers.stack.device_data import DeviceData
from workers.stack.flat import FlatModel
from workers.stack.gradient import update_keys
from workers.stack.graph import Graph
from workers.stack.hashing import combine, permutations
from workers.stack.lanes import LaneState, blank_columns, joined_columns, load_columns, select_columns
from workers.stack.optimizers import RULES, bias_corrections
from workers.stack.precision import shortened_products
from workers.stack.probe import verdict
from workers.stack.programs import Program
from workers.stack.snapshots import Row, Snapshots
from workers.stack.techniques import techniques_of

__all__ = ["Stack", "StackKey"]

log = logging.getLogger(__name__)

CHECKED_UPDATES = 2
_ORDER = 0x5EED
_EVALUATION_ELEMENTS = 1 << 24
"""Activations of one layer that an evaluation may hold at once (64 MiB)."""
_GATHERED_NUMBERS = {"cpu": 1 << 19, "cuda": 1 << 24}
"""Numbers of examples that are brought together at once for the coming updates (2 and 64 MiB)."""
_CAPTURED_UPDATES = 64
"""Maximum number of updates of one CUDA graph."""

_CHECKED: dict[Path, bool] = {}
"""Programs that this process has tried, and whether they compute what the eager update does."""


class Stack:
    """k lanes of one `StackKey` on one device's data.

    ``techniques`` are those that lanes are expected to have on, so that a compiled update need not be compiled again
    when they come. A stack learns of others by itself. ``graphs``: on CUDA, capture the computations for one number of
    lanes. On a CPU a stack computes by `use`d programs where it has some.
    """

    def __init__(
        self, key: StackKey, data: DeviceData, *, graphs: bool = False, techniques: frozenset[str] = frozenset()
    ) -> None:
        self.key = key
        self.data = data
        trial = verdict(key.shape, data)
        if trial.fault is not None:
            raise TrialError(trial.fault)
        self.model = FlatModel(key.shape, data.device)
        self.model.separate = trial.separate if data.crew is None else SEPARATE
        self.techniques = techniques
        self.programs: dict[Part, Program] = {}
        self._graphs = graphs
        self._prepare()
        self.updates = -(-data.train_rows // key.batch_size)
        self.batch = -(-data.train_rows // self.updates)
        self.state = self._idle_state(0)
        self.columns = blank_columns(0, self.model.dropouts, data.device, classes=int(data.balance.shape[1]))
        self.folds = torch.zeros(0, dtype=torch.int64, device=data.device)
        self._judged_by: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.best_weights, self.best_stats = self.state.weights.clone(), self.state.stats.clone()
        self._snapshots = Snapshots(data.task, self._validated)

    @property
    def blueprint(self) -> Blueprint:
        """What its programs depend on."""
        return self.blueprint_of(self.lanes)

    def blueprint_of(self, lanes: int) -> Blueprint:
        """What its programs would depend on with so many lanes."""
        data, rows = self.data, self._evaluated_at_once(lanes, int(self.data.valid.shape[1]))
        return Blueprint(
            self.key,
            data.task,
            data.outputs,
            tuple(sorted(self.techniques)),
            lanes,
            self.batch,
            rows,
            shared=data.folds == 1,
            weighted=data.weights is not None,
        )

    def use(self, part: Part, program: Program) -> None:
        """Compute ``part`` by a program made for its present `blueprint`."""
        self.programs[part] = program

    def run_eagerly(self) -> None:
        """Use the update and the evaluation as they are written, for any number of lanes."""
        self.programs, self._graphs = {}, False
        self._prepare()

    @cached_property
    def _anchor(self) -> Tensor | None:
        """(P,) the weights that fine-tuning begins with."""
        if self.data.start is None:
            return None
        initialize(self.model.template, {}, 0)
        adopt(self.model.template, self.data.start)
        return self.model.rows()[0].to(self.data.device)

    def _prepare(self) -> None:
        """The evaluation, the update with the techniques in use, and what it is checked against."""
        self.programs = {}
        self._eager = update_of(self.model, self.key, self.data.task, self.techniques, self.data.crew)
        self._eager.anchor = self._anchor
        self._captured: dict[object, Graph] = {}

    @property
    def lanes(self) -> int:
        """k, the number of lanes, idle ones included."""
        return int(self.state.weights.shape[0])

    def resize(self, keep: Sequence[int], k: int) -> None:
        """Keep the lanes ``keep`` as lanes 0, 1, …, drop the others, and add idle lanes up to ``k``."""
        self._captured.clear()
        chosen = torch.tensor(list(keep), dtype=torch.int64, device=self.data.device)
        idle = k - len(keep)
        fresh = self._idle_state(idle)
        self.state = self.state.select(chosen).followed_by(fresh)
        blank = blank_columns(idle, self.model.dropouts, self.data.device, classes=int(self.data.balance.shape[1]))
        self.columns = joined_columns(select_columns(self.columns, chosen), blank)
        self._judged_by = None
        self.folds = torch.cat([self.folds[chosen], torch.zeros(idle, dtype=torch.int64, device=self.data.device)])
        self.best_weights = torch.cat([self.best_weights[chosen], fresh.weights])
        self.best_stats = torch.cat([self.best_stats[chosen], fresh.stats])
        self._snapshots.resize(keep, k)

    def load(self, lane: int, recipe: Recipe, *, seed: int, fold: int = 0) -> None:
        """Start a new run in ``lane``: weights from ``seed`` or `DeviceData.start`, the recipe's rates."""
        seen = self.data.seen(fold) if looks_at_examples(self.model.template, recipe) else None
        initialize(self.model.template, recipe, seed, seen)
        if self.data.start is not None and recipe.word("fine_tune") != "off":
            adopt(self.model.template, self.data.start)
        weights, stats = self.model.rows()
        self.state.weights[lane] = weights
        self.state.stats[lane] = stats
        self.state.mean_weights[:, lane] = weights
        self.state.mean_stats[:, lane] = stats
        self.state.first[lane], self.state.second[lane] = 0.0, 0.0
        self.state.updates[lane] = 0
        self.folds[lane], self._judged_by = fold, None
        self._snapshots.forget(lane)
        rates = self.model.rates(recipe)
        load_columns(self.columns, lane, recipe, rates=rates, seed=seed, balance=self.data.balance[fold])
        if not self._graphs:  # a captured update is made once, for any rates
            self.model.drop_in((self.columns["dropout"] > 0).any(0).tolist())
        techniques = self.techniques | techniques_of([recipe])
        if techniques != self.techniques:
            if "averaging" in techniques - self.techniques:
                self.state = self.state.with_averages()
            self.techniques = techniques
            self._prepare()

    def set_strengths(self, lanes: Sequence[int], recipe: Recipe, dropout: float, weight_decay: float) -> None:
        """Multiply dropout rates and weight decay of a recipe's lanes by the factors of the coming epoch."""
        own = torch.tensor(self.model.rates(recipe)) * dropout
        self.columns["dropout"][lanes] = own.to(self.data.device)
        self.columns["weight_decay"][lanes] = recipe.number("weight_decay") * weight_decay

    def train_epoch(self, rates: NDArray[np.float32], holds: NDArray[np.float32] | None = None) -> Tensor:
        """One epoch of all lanes at learning rates ``rates (k, u)``; returns the mean training losses (k,).

        ``holds`` (k, u) determines how the weights are averaged (see `workers.stack.techniques.averaging`); without it,
        they are not.

        Every lane sees all of its rows in its own order; the last batch is filled with the order's first rows.
        """
        return self.train_updates(rates, self.updates, holds)

    def train_updates(self, rates: NDArray[np.float32], updates: int, holds: NDArray[np.float32] | None = None) -> Tensor:
        """The first ``updates`` updates of an epoch; see `train_epoch`."""
        lr = torch.from_numpy(np.ascontiguousarray(rates.T)).to(self.data.device)
        hold = torch.zeros_like(lr) if holds is None else torch.from_numpy(np.ascontiguousarray(holds.T)).to(lr.device)
        total = torch.zeros(self.lanes, device=self.data.device)
        updates = min(updates, self.updates)
        steps = torch.arange(updates, dtype=torch.int32, device=self.data.device)[:, None] + self.state.updates
        keys = update_keys(self.columns["seed"], steps, self.model.dropouts)
        bias = bias_corrections(self.columns["rest1"], self.columns["rest2"], steps + 1)
        batches = self._batches()
        each = max(1, self.lanes * self.batch * self.data.numbers)
        chunk = max(1, _GATHERED_NUMBERS[self.data.device.type] // each)
        if self._graphs:
            chunk = min(chunk, _CAPTURED_UPDATES)
        with shortened_products(self.key.precision == "tf32"):
            for first in range(0, updates, chunk):
                last = min(updates, first + chunk)
                rows = batches[first:last]
                settings = [values[first:last] for values in (lr, bias, hold, keys)]
                weights = [] if self.data.weights is None else [self.data.weights[rows]]
                self._train(total, *settings, self.data.x[rows], self.data.y[rows], *weights)
        return total / updates

    def _train(self, total: Tensor, *steps: Tensor) -> None:
        """The updates of ``steps``, each (u, ...); their losses are added to ``total`` (k,)."""
        program = self.programs.get("update")
        if program is not None and self._agrees(program, *steps):
            program.run(tensors_of([self.state, self.columns, total]), steps, len(steps[0]))
            return
        if self._graphs:
            total += self._by_graph(*steps)
            return
        self.model.module.train()
        for step in _unbound(steps):
            total += self._eager(self.state, self.columns, *step)

    def _by_graph(self, *steps: Tensor) -> Tensor:
        """The sum of the losses (k,) of several updates that are one CUDA graph."""
        name = ("update", len(steps[0]))
        if name not in self._captured:
            self.model.module.train()

            def updates(*given: Tensor) -> Tensor:
                return torch.stack([self._eager(self.state, self.columns, *step) for step in _unbound(given)]).sum(0)

            self._captured[name] = Graph(updates, steps, tensors_of([self.state]))
        return self._captured[name](*steps)

    def _agrees(self, program: Program, *steps: Tensor) -> bool:
        """Whether a program computes what the eager update does; tried once for each program of a process."""
        if program.path in _CHECKED:
            return _CHECKED[program.path]
        state, losses = self.state.copy(), torch.zeros(self.lanes)
        times = min(CHECKED_UPDATES, len(steps[0]))
        program.run(tensors_of([state, self.columns, losses]), steps, times)
        self.model.module.train()
        state, expected = self.state.copy(), torch.zeros(self.lanes)
        for step in _unbound(steps)[:times]:
            expected += self._eager(state, self.columns, *step)
        return _checked(program, "update", losses, expected)

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """Metrics (k, len(metrics.names(…))) of the present weights on each lane's validation rows."""
        data = self.data
        if self._judged_by is None:
            rows = data.valid[self.folds]
            self._judged_by = rows, data.y[rows], data.mask[self.folds], data.scale[self.folds]
        rows, target, mask, scale = self._judged_by

        def part(which: slice) -> Tensor:
            found: Tensor = data.valid_x[which] if data.folds == 1 else data.x[rows[:, which]]
            return found

        out = self._outputs(self._evaluated, *self.state.evaluated(), part, int(rows.shape[1]))
        out = self._snapshots.judged(out)
        rows_of = (data.task, out, target, mask, scale)
        return evaluate(*rows_of, wanted=data.wanted, positive=data.positive, quantile=data.quantile)

    def take_snapshot(self, lane: int) -> None:
        """Keep the present weights of a lane: from now on it is evaluated together with them."""
        weights, stats = self.state.evaluated()
        self._snapshots.take(lane, (weights[lane], stats[lane]))

    def _validated(self, lane: int, row: Row) -> Tensor:
        """(m, outputs) of weights on a lane's validation rows."""
        weights, stats = (each.to(self.data.device)[None] for each in row)
        return self.predict(weights, stats, self.data.valid[self.folds[lane]][None])[0]

    def sparsity(self) -> Tensor:
        """(k,) share of the weights that are exactly zero."""
        weights, penalized = self.state.evaluated()[0], self._eager.penalized
        if weights.device.type != "cpu":
            return ((weights == 0) * penalized).sum(1) / penalized.sum()
        zeros = (weights.numpy() == 0) & (penalized.numpy() > 0)  # ten times as fast as torch
        return torch.tensor([np.count_nonzero(row) for row in zeros]) / penalized.sum()

    @torch.no_grad()
    def predict(self, weights: Tensor, stats: Tensor, rows: Tensor) -> Tensor:
        """Outputs (k, r, outputs) of the given weights on data rows ``rows (k, r)``, in eval mode.

        For any number of lanes and rows, so it is run eagerly.
        """
        self.model.module.eval()
        shared, data_x = self.data.folds == 1, self.data.x

        def forward(*given: Tensor) -> Tensor:
            return self.model.forward(*given, shared=shared)[0]

        def part(which: slice) -> Tensor:
            found: Tensor = data_x[rows[0, which] if shared else rows[:, which]]
            return found

        return self._outputs(forward, weights, stats, part, int(rows.shape[1]))

    def _evaluated(self, weights: Tensor, stats: Tensor, rates: Tensor, keys: Tensor, x: Tensor) -> Tensor:
        """(k, r, outputs) of all lanes, by a program if there is one."""
        program = self.programs.get("evaluation")
        if program is None:
            return self._evaluated_eagerly(weights, stats, rates, keys, x)
        if _CHECKED.get(program.path) is False:
            return self._evaluated_eagerly(weights, stats, rates, keys, x)
        out = torch.empty(self.lanes, x.shape[-1 - len(self.data.inputs)], self.data.outputs)
        program.run([out, weights, stats, rates, keys, x])
        if program.path in _CHECKED:
            return out
        expected = self._evaluated_eagerly(weights, stats, rates, keys, x)
        return out if _checked(program, "evaluation", out, expected) else expected

    def _evaluated_eagerly(self, *given: Tensor) -> Tensor:
        self.model.module.eval()
        shared = self.data.folds == 1
        if not self._graphs:
            return self.model.forward(*given, shared=shared)[0]
        name = ("evaluation", given[-1].shape)
        if name not in self._captured:
            weights = given[0]

            def forward(*rest: Tensor) -> Tensor:
                return self.model.forward(weights, *rest, shared=shared)[0]

            self._captured[name] = Graph(forward, given[1:], [])
        return self._captured[name](*given[1:]).clone()

    def _evaluated_at_once(self, k: int, count: int) -> int:
        """Rows in each part of an evaluation of ``count`` rows; all parts have this size."""
        chunk = max(1, _EVALUATION_ELEMENTS // max(1, k * self.model.largest_activation))
        return -(-count // -(-count // chunk))

    def _outputs(
        self, forward: Callable[..., Tensor], weights: Tensor, stats: Tensor, x: Callable[[slice], Tensor], count: int
    ) -> Tensor:
        """Outputs in as many parts as memory asks for; all have one shape, for which there is one program.

        ``x`` gives the examples of a part of the ``count`` rows.
        """
        k = len(weights)
        size = self._evaluated_at_once(k, count)
        rates = self.columns["dropout"][:k]
        keys = torch.zeros(k, self.model.dropouts, dtype=torch.int32, device=weights.device)
        found = []
        for start in range(0, count, size):
            first = max(0, min(start, count - size))
            out = forward(weights, stats, rates, keys, x(slice(first, first + size)))
            found.append(out[:, start - first :])
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def keep_best(self, improved: Sequence[bool]) -> None:
        """Remember the present weights of every lane where ``improved`` (k,) as its best."""
        weights, stats = self.state.evaluated()
        for lane in [lane for lane, better in enumerate(improved) if better]:
            self.best_weights[lane].copy_(weights[lane])
            self.best_stats[lane].copy_(stats[lane])
            self._snapshots.keep_best(lane)

    def best(self, lane: int) -> dict[str, Tensor]:
        """The best weights of a lane, named as in the module's state dict, on the CPU; with snapshots in that of an
        `Average`.
        """
        rows = [(self.best_weights[lane], self.best_stats[lane]), *self._snapshots.best(lane)]
        named = joined([self.model.state_dict(*row) for row in rows])
        return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in named.items()}

    def predict_best(self, lane: int, rows: Tensor) -> Tensor:
        """Outputs (1, r, outputs) of the best weights of a lane, with its snapshots, on data rows ``rows (r,)``."""
        device = self.data.device
        kept = [(self.best_weights[lane], self.best_stats[lane]), *self._snapshots.best(lane)]
        outs = [self.predict(weights.to(device)[None], stats.to(device)[None], rows[None])[0] for weights, stats in kept]
        return self._snapshots.joined(outs)[None]

    def saved(self, lane: int) -> dict[str, Tensor]:
        """A lane's whole state, on the CPU."""
        best = {"best_weights": self.best_weights[lane], "best_stats": self.best_stats[lane]}
        best = {name: value.cpu().clone() for name, value in best.items()}
        return {**self.state.lane(lane), **best, **self._snapshots.saved(lane)}

    def restore(self, lane: int, saved: dict[str, Tensor]) -> None:
        """Bring a lane to a state that `saved` gave."""
        self.state.load(lane, saved)
        self.best_weights[lane] = saved["best_weights"].to(self.data.device)
        self.best_stats[lane] = saved["best_stats"].to(self.data.device)
        self._snapshots.restore(lane, saved)

    def _batches(self) -> Tensor:
        """(u, k, b) data rows in each lane's order of this epoch."""
        epochs = self.state.updates // self.updates
        keys = combine(combine(self.columns["seed"], _ORDER), epochs)
        order = permutations(keys, self.data.train_rows)
        order = torch.cat([order, order[:, : self.updates * self.batch - self.data.train_rows]], dim=1)
        rows = self.data.train[self.folds].gather(1, order)
        return rows.view(self.lanes, self.updates, self.batch).transpose(0, 1).contiguous()

    def _idle_state(self, k: int) -> LaneState:
        """Rows for k idle lanes."""
        return LaneState.zeros(
            k,
            parameters=self.model.parameters,
            statistics=self.model.statistics,
            moments=RULES[self.key.optimizer].moments,
            averaging="averaging" in self.techniques,
            device=self.data.device,
        )


def _checked(program: Program, part: Part, found: Tensor, expected: Tensor) -> bool:
    """Whether a program computes what it stands for, which its process keeps in mind."""
    agrees = torch.allclose(found, expected, rtol=1e-3, atol=1e-4, equal_nan=True)
    if not agrees:
        log.warning("a compiled %s is wrong on this machine; its stacks are trained without it", part)
    _CHECKED[program.path] = agrees
    return agrees


def _unbound(steps: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """The arguments (...) of each of several updates (u, ...)."""
    return list(zip(*(each.unbind() for each in steps), strict=True))

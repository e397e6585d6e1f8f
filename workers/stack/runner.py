"""Runs (trials, or finalists) on the lanes of one stack key, epoch by epoch. Knows no database and no pruner."""

from __future__ import annotations

import gc
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.errors import TrialError
from workers.plain.foreign import sentence
from workers.scoring.metrics import names
from workers.stack.block import Block, Epoch
from workers.stack.blueprint import PARTS, Part
from workers.stack.device_data import DeviceData
from workers.stack.layout import Layout
from workers.stack.memory import is_out_of_memory, spoils_thread
from workers.stack.run import Run
from workers.stack.stack import Stack, StackKey
from workers.stack.techniques import TECHNIQUES
from workers.timing import Timer

log = logging.getLogger(__name__)


class StackRunner:
    """Runs of one stack key: lanes are filled, trained together, freed as soon as their run is over.

    Lanes are in blocks as the ``layout`` says, and there are as many blocks as the runs need. Blocks with programs, and a
    captured one, have a fixed number of lanes, of which some may be computed in vain; others, and those that have no program
    yet, just the lanes in use.
    """

    def __init__(
        self,
        key: StackKey,
        data: DeviceData,
        *,
        layout: Layout | None = None,
        techniques: frozenset[str] = frozenset(),
    ) -> None:
        self._make = partial(Stack, key, data, techniques=techniques)
        self._key = key
        self._data = data
        self._layout = layout or Layout()
        self._most = math.inf
        self._renewed = False
        """Whether the last failure has led to other threads."""
        self.blocks: list[Block] = []
        self.runs: list[Run] = []
        self.waiting: deque[Run] = deque()
        self.last_call = False
        """Set by the caller when no further runs will come."""
        self.rounds = 0
        self.taken_over: dict[Part, int] = {}
        """After how many rounds each part went over to its program."""
        self.lane_epochs = 0
        self.computed_lane_epochs = 0
        self.timer = Timer()

    @property
    def stack_lanes(self) -> int:
        """Lanes of the blocks, idle ones included."""
        return sum(block.stack.lanes for block in self.blocks)

    @property
    def lanes(self) -> int:
        """Lanes in use."""
        return sum(run.lanes for run in self.runs)

    @property
    def wanted_lanes(self) -> int:
        """Lanes in use, and those that waiting runs will need."""
        return self.lanes + sum(run.lanes for run in self.waiting)

    @property
    def idle_share(self) -> float:
        """Share of the lanes that the next epoch would compute in vain, though runs may still come for them.

        Only of a captured stack: blocks are as many as are needed.
        """
        if not self._layout.graphs or self._layout.lanes is None or self.last_call:
            return 0.0
        return max(0.0, 1.0 - self.wanted_lanes / self._layout.lanes)

    def add(self, runs: Sequence[Run]) -> None:
        """Hand over new runs; they start with the next epoch, or when lanes are free."""
        self.waiting.extend(runs)

    # --- lanes -----------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Give lanes to waiting runs, first come first served."""
        if self._layout.graphs and self.last_call and not self._layout.suits(self.wanted_lanes):
            self._layout = replace(self._layout, graphs=False, lanes=None)
            for block in self.blocks:
                block.stack.run_eagerly()
        admitted: list[Run] = []
        graphs = self._layout.graphs
        room = min(self._layout.lanes if graphs and self._layout.lanes else math.inf, self._most) - self.lanes
        while self.waiting and self.waiting[0].lanes <= room:
            admitted.append(self.waiting.popleft())
            room -= admitted[-1].lanes
            self.runs.append(admitted[-1])
        self._make_room(sum(run.lanes for run in admitted))
        idle = iter([(block, lane) for block in self.blocks for lane in block.idle])
        for run in admitted:
            for number in range(run.lanes):
                block, lane = next(idle)
                block.load(lane, run, number)
            run.restore = None
        self._tidy()

    def _make_room(self, needed: int) -> None:
        """Have at least so many idle lanes."""
        size = self._layout.lanes
        if size is None:
            self.blocks = self.blocks or [Block(self._make())]
            self.blocks[0].resize(len(self.blocks[0].live) + needed)
            return
        if not needed:
            return
        for block in self.blocks:
            block.resize(size)
        missing = needed - sum(len(block.idle) for block in self.blocks)
        for _ in range(0, missing, size):
            block = Block(self._make(graphs=self._layout.graphs))
            block.resize(size)
            for part in self.taken_over:
                self._use(block, part)
            self.blocks.append(block)

    def _tidy(self) -> None:
        """Give up blocks that are not needed, and lanes that need not be computed."""
        size = self._layout.lanes
        if size is None or self._layout.graphs:
            return
        self.blocks = [block for block in self.blocks if block.live]
        while len(self.blocks) > self._layout.threads.count and self.lanes <= (len(self.blocks) - 1) * size:
            emptiest = min(self.blocks, key=lambda block: len(block.live))
            others = [block for block in self.blocks if block is not emptiest]
            for block in others:
                block.resize(size)
            idle = iter([(block, lane) for block in others for lane in block.idle])
            for lane in emptiest.live:
                emptiest.move(lane, *next(idle))
            self.blocks = others
        if not self.taken_over:
            for block in self.blocks:
                block.resize(len(block.live))

    def _places(self, run: Run) -> list[tuple[Block, int]]:
        """The lanes a run is on, in order of its folds."""
        found: dict[int, tuple[Block, int]] = {}
        for block in self.blocks:
            for lane, owner in enumerate(block.owner):
                if owner is not None and owner[0] is run:
                    found[owner[1]] = (block, lane)
        return [found[number] for number in sorted(found)]

    def remove(self, run: Run) -> None:
        """Free a run's lanes, keeping its curve."""
        self.runs.remove(run)
        for block in self.blocks:
            block.free(run)

    # --- programs --------------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Go over to the programs that are there; a repeated search does so exactly when the first one did."""
        workshop, planned, size = self._layout.workshop, self._layout.taken_over, self._layout.lanes
        if workshop is None or size is None or not self.blocks:
            return
        blueprint = self.blocks[0].stack.blueprint_of(size)
        for part in PARTS:
            if part in self.taken_over or (planned is not None and planned.get(part, math.inf) > self.rounds):
                continue
            found = workshop.find(blueprint, part, build=self._layout.builds, wait=planned is not None)
            if found is not None:
                self.taken_over[part] = self.rounds
                for block in self.blocks:
                    block.resize(size)
                    self._use(block, part)

    def _use(self, block: Block, part: Part) -> None:
        assert self._layout.workshop is not None
        program = self._layout.workshop.find(block.stack.blueprint, part, build=self._layout.builds)
        if program is not None:
            block.stack.use(part, program)

    # --- an epoch --------------------------------------------------------------------------------------------------

    def epoch(self) -> list[Run]:
        """Train every run for one epoch and evaluate it. Ended runs stay on their lanes until removed.

        Where memory runs out, half of the lanes must do: all runs begin again, as many at a time as fit.

        Returns:
            The runs in order of arrival, each with one more point on its curve, and ``ending`` set where it is over.
        """
        return self.finish(self.start())

    def start(self) -> list[Future[Epoch]]:
        """Begin an epoch: give lanes to waiting runs, and let the threads train the blocks. `finish` has to follow."""
        try:
            self._admit()
            self._take_over()
        except (RuntimeError, MemoryError) as error:
            failed: Future[Epoch] = Future()
            failed.set_exception(error)
            return [failed]
        return self._layout.threads.start([block.train for block in self.blocks])

    def finish(self, started: Sequence[Future[Epoch]]) -> list[Run]:
        """Wait for the blocks of an epoch that was begun; see `epoch`."""
        while True:
            errors = [error for each in started if (error := each.exception()) is not None]
            if not errors:
                return self._observed([each.result() for each in started])
            for error in errors:
                if not (isinstance(error, Exception) and is_out_of_memory(error)):
                    self._raise(error)
            spoiled = any(spoils_thread(error) for error in errors)
            del errors, error, started
            if spoiled:
                self._layout.threads.renew()
            again, self._renewed = spoiled and not self._renewed, spoiled
            if len(self.runs) == 1 and not again:
                self._drop_stacks()
                self.runs[0].ending = "out_of_memory"
                return list(self.runs)
            self._retreat()
            started = self.start()

    def _raise(self, error: BaseException) -> NoReturn:
        """Raise an error of the training, which is the module's own if it is one of theirs."""
        name = self._key.shape.module
        if name is None or not isinstance(error, Exception) or isinstance(error, TrialError):
            raise error
        raise TrialError(f"{name} failed in training: {sentence(error)}") from error

    def _retreat(self) -> None:
        """Begin again with half of the lanes."""
        self._most = max(self.lanes // 2, *(run.lanes for run in self.runs))
        log.warning("out of memory with %d lanes; going on with %d", self.lanes, self._most)
        again = [Run(run.key, run.recipe, run.fold_seeds, run.protocol) for run in self.runs]
        self.waiting.extendleft(reversed(again))
        self.runs = []
        self._layout = Layout(threads=self._layout.threads)
        self._drop_stacks()

    def _drop_stacks(self) -> None:
        """Free their memory at once: reporting the failure takes some, too."""
        self.blocks = []
        gc.collect()

    def _observed(self, epochs: Sequence[Epoch]) -> list[Run]:
        """Pass what the blocks have measured on to the runs."""
        self.rounds += 1
        self.lane_epochs += self.lanes
        self.computed_lane_epochs += self.stack_lanes
        self.timer.add("updates", sum(each.updates for each in epochs) / self._layout.threads.count)
        self.timer.add("evaluation", sum(each.evaluation for each in epochs) / self._layout.threads.count)
        columns = names(self._data.task, self._data.wanted)
        zeroing = [each for each in TECHNIQUES if each.makes_zeros]
        rows = self._rows(epochs)
        improved = set()
        for run in self.runs:
            table, sparsity = rows[run]
            train_loss, *values = table.mean(axis=0, dtype=np.float64).tolist()
            metrics = dict(zip(columns, values, strict=True))
            if sparsity is not None and any(each.is_on(run.recipe) for each in zeroing):
                metrics["sparsity"] = float(sparsity.mean())
            if run.observe(train_loss, metrics):
                improved.add(run)
        for block in self.blocks:
            block.keep_best(improved)
        return list(self.runs)

    def _rows(self, epochs: Sequence[Epoch]) -> dict[Run, tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        """Each run's rows of the blocks' tables, and its sparsities, in order of its folds."""
        found: dict[Run, list[tuple[int, Epoch, int]]] = {run: [] for run in self.runs}
        for block, epoch in zip(self.blocks, epochs, strict=True):
            for lane, owner in enumerate(block.owner):
                if owner is not None:
                    found[owner[0]].append((owner[1], epoch, lane))
        rows: dict[Run, tuple[NDArray[np.float32], NDArray[np.float32] | None]] = {}
        for run, places in found.items():
            places.sort(key=lambda place: place[0])
            zeros = [epoch.sparsity[lane] for _, epoch, lane in places if epoch.sparsity is not None]
            rows[run] = np.stack([epoch.table[lane] for _, epoch, lane in places]), np.array(zeros) if zeros else None
        return rows

    # --- what a run has become -------------------------------------------------------------------------------------

    def checkpoint(self, run: Run) -> dict[str, Any]:
        """All that is needed to go on with a run elsewhere."""
        return {**run.saved(), "lanes": [block.stack.saved(lane) for block, lane in self._places(run)]}

    def best_weights(self, run: Run) -> list[dict[str, Tensor]]:
        """The kept weights of each of a run's lanes; valid until the run is removed."""
        return [block.stack.best(lane) for block, lane in self._places(run)]

    def weights_in(self, checkpoint: Mapping[str, Any]) -> list[dict[str, Tensor]]:
        """The weights that a checkpoint of this key's runs would go on with, lane by lane."""
        model = self.blocks[0].stack.model
        return [model.state_dict(lane["weights"], lane["stats"]) for lane in checkpoint["lanes"]]

    def predict(self, run: Run, rows: Sequence[Tensor]) -> list[Tensor]:
        """Outputs (1, r, o) of each of a run's lanes on its ``rows (r,)`` of the data, with the kept weights, in eval mode.

        Lane by lane, so that its neighbours can't change a digit.
        """
        outputs = []
        for (block, lane), chosen in zip(self._places(run), rows, strict=True):
            outputs.append(block.stack.predict_best(lane, chosen))
        return outputs

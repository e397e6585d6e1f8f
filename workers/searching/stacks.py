"""The stacks of one search on one device: a runner per stack key, created as planned. Independent of the store."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from service.spec import Recipe, StudySpec
from workers.planning.plan import Plan
from workers.searching.turns import Occupancy, Turns
from workers.stack.block import Epoch
from workers.stack.blueprint import Part
from workers.stack.device_data import DeviceData
from workers.stack.layout import Threads
from workers.stack.probe import verdict
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import StackKey
from workers.stack.techniques import techniques_in
from workers.stack.workshop import Workshop

_Place = tuple[StackKey, int, int]
"""A key, which of its halves, and which of the data."""


class Stacks:
    """The lanes of all stack keys of a study, on the ``data`` that its runs name as their `Run.part`."""

    def __init__(self, spec: StudySpec, data: Sequence[DeviceData], plan: Plan, workshop: Workshop) -> None:
        self._data = data
        self._folds = data[0].folds
        self._capacity = plan.capacity
        self._plan = plan
        self._workshop = workshop
        self._threads = Threads(plan.threads or 1, workshop.is_building)
        half = max(1, plan.block_lanes // 2) if plan.block_lanes else plan.capacity
        self._first = min(plan.capacity, max(self._folds, self._threads.count * half))
        self._begun = False
        self._techniques = techniques_in(spec.domains) if plan.compiled_lanes else frozenset[str]()
        self._runners: dict[_Place, StackRunner] = {}
        self._halves = 2 if spec.stack_keys == 1 and data[0].device.type == "cpu" else 1
        self._in_flight: deque[tuple[StackRunner, list[Future[Epoch]]]] = deque()
        # A trial with a time limit must not spend it waiting.
        self._turns = Turns() if spec.budget.trial_seconds is None else Turns(patience=0)
        self._occupancy = Occupancy()

    @property
    def lanes(self) -> int:
        """Lanes in training."""
        return sum(runner.lanes for runner in self._runners.values())

    @property
    def free_lanes(self) -> int:
        """Lanes of the plan that no run occupies or waits for; negative if there are more runs than lanes.

        Until the first trial has ended there is half a block for each thread, so that people soon see something.
        """
        capacity = self._capacity if self._begun else self._first
        return capacity - sum(runner.wanted_lanes for runner in self._runners.values())

    @property
    def lane_epochs(self) -> int:
        """Epochs trained so far by all lanes together."""
        return sum(runner.lane_epochs for runner in self._runners.values())

    @property
    def occupancy(self) -> float:
        """Live lane-epochs per lane-epoch computed."""
        computed = self._computed_lane_epochs
        return self.lane_epochs / computed if computed else 1.0

    @property
    def steady_occupancy(self) -> float:
        """The same, without the initial filling of lanes and the tail of the study."""
        return self._occupancy.steady

    @property
    def _computed_lane_epochs(self) -> int:
        return sum(runner.computed_lane_epochs for runner in self._runners.values())

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of training by kind of work."""
        parts: dict[str, float] = defaultdict(float)
        for runner in self._runners.values():
            for name, seconds in runner.timer.seconds.items():
                parts[name] += seconds
        return parts

    def fill(self, runs: Sequence[Run], *, supplied: bool) -> None:
        """Add the runs that start in this round; ``supplied`` if more may come."""
        for run in runs:
            key = _key(run.recipe, self._data[run.part])
            self._runner(key, run.part).add([run])
        for runner in self._runners.values():
            runner.last_call = not supplied
        full = self.free_lanes < self._folds
        self._occupancy.note(self.lane_epochs, self._computed_lane_epochs, full=full, supplied=supplied)

    def train(self) -> None:
        """Begin an epoch of every stack that is due, and is not training yet.

        There are always some blocks to train while the trials of a stack that has finished its epoch are judged.
        """
        training = {runner for runner, _ in self._in_flight}
        for runner in self._turns.due(self._runners.values()):
            if runner not in training:
                self._in_flight.append((runner, runner.start()))

    @property
    def training(self) -> bool:
        """Whether some stack is training."""
        return bool(self._in_flight)

    def finish(self) -> tuple[StackRunner, list[Run]]:
        """Wait for the stack that began its epoch first; returns it with its runs.

        Stacks take turns in a fixed order, so that the search does not depend on which is faster.
        """
        runner, blocks = self._in_flight.popleft()
        return runner, runner.finish(blocks)

    def _runner(self, key: StackKey, part: int) -> StackRunner:
        """Where a further run of a stack key trains. The only key of a study has two runners, which train in turn."""
        halves = [self._runners.get((key, half, part)) for half in range(self._halves)]
        for half, found in enumerate(halves):
            if found is None:
                place, data = (key, half, part), self._data[part]
                layout = self._plan.layout(self._workshop, self._threads, data.device, _name(*place))
                made = StackRunner(key, data, layout=layout, techniques=self._techniques)
                self._runners[place] = made
                return made
        return min((found for found in halves if found is not None), key=lambda runner: runner.wanted_lanes)

    def begun(self) -> None:
        """Note that a trial has ended: from now on all lanes are filled."""
        self._begun = True

    @property
    def taken_over(self) -> dict[str, dict[Part, int]]:
        """When each stack went over to its programs (see `Plan.taken_over`)."""
        return {_name(*place): runner.taken_over for place, runner in self._runners.items()}

    def close(self) -> None:
        """End the threads."""
        self._threads.close()

    def running(self) -> Iterator[tuple[Run, StackRunner]]:
        """All runs that are on lanes."""
        for runner in self._runners.values():
            yield from ((run, runner) for run in runner.runs)


def fault_of(recipe: Recipe, data: DeviceData) -> str | None:
    """Why a recipe's network can't be trained at all; only a module of theirs is tried."""
    return verdict(_key(recipe, data).shape, data).fault


def _key(recipe: Recipe, data: DeviceData) -> StackKey:
    return StackKey.of(recipe, data.inputs, data.outputs, data.categories, data.several)


def _name(key: StackKey, half: int, part: int) -> str:
    return f"{key.digest}/{half}" + (f"/{part}" if part else "")

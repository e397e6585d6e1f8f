"""The stacks of one search on one device: a runner per stack key, created as planned. Independent of the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.spec import StudySpec
from workers.planning.plan import Plan
from workers.searching.turns import Occupancy, Turns
from workers.stack.device_data import DeviceData
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import StackKey
from workers.stack.techniques import techniques_in


class Stacks:
    """The lanes of all stack keys of a study. ``cache`` is the directory of compiled programs."""

    def __init__(self, spec: StudySpec, data: DeviceData, plan: Plan, cache: Path) -> None:
        self._data = data
        self._capacity = plan.capacity
        self._compiled = plan.compiled(cache)
        self._techniques = techniques_in(spec.domains) if self._compiled else frozenset[str]()
        self._runners: dict[StackKey, StackRunner] = {}
        # A trial with a time limit must not spend it waiting.
        self._turns = Turns() if spec.budget.trial_seconds is None else Turns(patience=0)
        self._occupancy = Occupancy()

    @property
    def lanes(self) -> int:
        """Lanes in training."""
        return sum(runner.lanes for runner in self._runners.values())

    @property
    def free_lanes(self) -> int:
        """Lanes of the plan that no run occupies or waits for; negative if there are more runs than lanes."""
        return self._capacity - sum(runner.wanted_lanes for runner in self._runners.values())

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
        by_key: dict[StackKey, list[Run]] = {}
        for run in runs:
            by_key.setdefault(self._key(run), []).append(run)
        for key, new in by_key.items():
            if key not in self._runners:
                self._runners[key] = StackRunner(key, self._data, compiled=self._compiled, techniques=self._techniques)
            self._runners[key].add(new)
        for runner in self._runners.values():
            runner.last_call = not supplied
        full = self.free_lanes < self._data.folds
        self._occupancy.note(self.lane_epochs, self._computed_lane_epochs, full=full, supplied=supplied)

    def due(self) -> list[StackRunner]:
        """The runners that train in this round."""
        return self._turns.due(self._runners.values())

    def running(self) -> Iterator[tuple[Run, StackRunner]]:
        """All runs that are on lanes."""
        for runner in self._runners.values():
            yield from ((run, runner) for run in runner.runs)

    def _key(self, run: Run) -> StackKey:
        return StackKey.of(run.recipe, self._data.inputs, self._data.outputs, self._data.categories)

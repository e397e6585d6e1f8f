"""Which of the stacks on one device train in a round, and what share of the work was of use. Knows no database.

In every round each stack trains one epoch, so a dear one does not keep a cheap one from its turn. The exception is a
compiled stack with many idle lanes, which costs as much as a full one: it lets the others go first, for it may fill
meanwhile, but not for longer than `PATIENCE` rounds. So the stack of a rarely drawn key trains as often as its trials are
worth a full stack, and no key starves. Eager stacks have no idle lanes, and never wait.
"""

from __future__ import annotations

from collections.abc import Iterable

from workers.stack.runner import StackRunner

PATIENCE = 24
"""Rounds in a row that a stack may be passed over: with three stacks, one of them full, at most 2 of 27 that run are nearly
idle then."""
MOST_IDLE = 1 / 8
"""Share of idle lanes above which a stack lets others go first."""


class Turns:
    """The order of the stacks. Follows from their lanes alone, so a search repeats exactly."""

    def __init__(self, patience: int = PATIENCE) -> None:
        self._patience = patience
        self._passed_over: dict[StackRunner, int] = {}

    def due(self, runners: Iterable[StackRunner]) -> list[StackRunner]:
        """Those that train in the coming round: one at least, where any has a run."""
        wanted = [runner for runner in runners if runner.wanted_lanes]
        if not wanted:
            return []
        least = min(runner.idle_share for runner in wanted)
        passed_over = {each: self._passed_over.get(each, 0) for each in wanted}
        due = [each for each in wanted if each.idle_share <= max(least, MOST_IDLE) or passed_over[each] >= self._patience]
        self._passed_over = {each: passed_over[each] + 1 for each in wanted if each not in due}
        return due


class Occupancy:
    """Live lane-epochs per lane-epoch computed, in the steady state: from the first round in which all lanes are in demand
    to the last in which more trials could come. The filling before and the tail behind it say little of a long study.
    """

    def __init__(self) -> None:
        self._begin: tuple[int, int] | None = None
        self._end = (0, 0)
        self._supplied = False

    def note(self, live: int, computed: int, *, full: bool, supplied: bool) -> None:
        """Call before every round with all lane-epochs so far, and whether in this round all lanes are in demand, and more
        trials may come.
        """
        if self._begin is None and full:
            self._begin = self._end = (live, computed)
        elif self._supplied:
            self._end = (live, computed)
        self._supplied = supplied

    @property
    def steady(self) -> float:
        """Between 0 and 1; 1 where there was no such round yet."""
        live, computed = (0, 0) if self._begin is None else (self._end[each] - self._begin[each] for each in (0, 1))
        return live / computed if computed else 1.0

"""Which of the stacks on one device train in a round, and the share of useful work. Independent of the database.

In every round each stack trains one epoch, so an expensive one does not keep a cheap one waiting. The exception is a
compiled stack with many idle lanes, which costs as much as a full one: it lets the others go first, as it may fill
meanwhile, but for at most `PATIENCE` rounds. So the stack of a rarely sampled key trains about as often as its trials fill
it, and no key starves. Eager stacks have no idle lanes and never wait.
"""

from __future__ import annotations

from collections.abc import Iterable

from workers.stack.runner import StackRunner

PATIENCE = 24
"""Maximum number of consecutive rounds in which a stack is passed over: with three stacks, one of them full, at most 2 of
27 epochs then run on nearly idle stacks."""
MOST_IDLE = 1 / 8
"""Share of idle lanes above which a stack lets others go first."""


class Turns:
    """The order of the stacks. It depends on their lanes alone, so a search can be repeated exactly."""

    def __init__(self, patience: int = PATIENCE) -> None:
        self._patience = patience
        self._passed_over: dict[StackRunner, int] = {}

    def due(self, runners: Iterable[StackRunner]) -> list[StackRunner]:
        """The stacks that train in the next round: at least one, if any has a run."""
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
    to the last in which more trials could come. The filling before it and the tail after it matter little in a long study.
    """

    def __init__(self) -> None:
        self._begin: tuple[int, int] | None = None
        self._end = (0, 0)
        self._supplied = False

    def note(self, live: int, computed: int, *, full: bool, supplied: bool) -> None:
        """Call before every round with the lane-epochs so far; ``full`` if all lanes are in demand in this round, and
        ``supplied`` if more trials may come.
        """
        if self._begin is None and full:
            self._begin = self._end = (live, computed)
        elif self._supplied:
            self._end = (live, computed)
        self._supplied = supplied

    @property
    def steady(self) -> float:
        """Between 0 and 1; 1 if there has been no such round."""
        live, computed = (0, 0) if self._begin is None else (self._end[each] - self._begin[each] for each in (0, 1))
        return live / computed if computed else 1.0

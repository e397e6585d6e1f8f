"""Keeps as many workers as the queue wants, between a least and a most number.

It only ever starts workers, and takes back those that have not begun. A worker without work ends by itself, so none is
stopped in the middle of something, and none is left on the cluster if this process is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.errors import DatabaseUnavailable
from service.store import Store
from service.store.demand import Demand
from workers.launch.profile import Profile

log = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0


class EngineTrouble(Exception):
    """An engine did not answer as it should; it is asked again later."""


@dataclass(frozen=True)
class Census:
    """Workers at one time: running, not begun yet, such of both that stay, and such that failed since the last census."""

    running: int = 0
    pending: int = 0
    staying: int = 0
    failed: int = 0

    @property
    def all(self) -> int:
        """Running or to come."""
        return self.running + self.pending


class Engine(Protocol):
    """What a cluster does for the scaler. Every method may raise `EngineTrouble`."""

    unit: int
    """Workers are started by so many at once."""

    def options(self) -> object:
        """What it would be asked for by `start`, to be shown."""

    def census(self) -> Census:
        """The workers that there are."""

    def start(self, count: int, *, stays: bool) -> None:
        """Ask for ``count`` more, a multiple of `unit`."""

    def withdraw(self, count: int) -> None:
        """Take back up to ``count`` workers that have not begun, those that stay last."""

    def drain(self) -> None:
        """Stop all: those that have begun save their lanes and give them back. Returns at once."""

    def kill(self) -> None:
        """End what is left."""


class Scaler:
    """Compares demand and workers, and closes the gap."""

    def __init__(self, store: Store, engine: Engine, profile: Profile, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._engine = engine
        self._profile = profile
        self._clock = clock
        self._pause = 0.0
        self._due = 0.0
        self._told = self._warned = ""

    def step(self) -> tuple[Demand, Census]:
        """Look once and act.

        Raises:
            DatabaseUnavailable: Of the queue nothing is known at the moment.
            EngineTrouble: Of the workers, or they could not be asked for.
        """
        demand = self._store.demand.read(self._profile.trials_per_worker, self._profile.devices_per_trial)
        census = self._engine.census()
        self._slow_down(census.failed)
        wanted = wanted_workers(demand.workers, self._profile, self._engine.unit)
        missing = wanted - census.all
        self._tell(
            f"wanted {wanted}, running {census.running}, pending {census.pending} "
            f"(the queue: {demand.studies} studies, {demand.trials} trials left)"
        )
        self._warn(too_large(demand, self._profile))
        if missing > 0 and self._clock() >= self._due:
            stay = min(missing, _in_units(max(0, self._profile.min - census.staying), self._engine.unit))
            for count, stays in ((stay, True), (missing - stay, False)):
                if count:
                    log.info("asking for %d more%s", count, ", which stay" if stays else "")
                    self._engine.start(count, stays=stays)
        elif missing < 0 and census.pending:
            count = min(-missing, census.pending)
            log.info("taking back %d that have not begun", count)
            self._engine.withdraw(count)
        return demand, census

    def run(self, wait: Callable[[float], bool], *, until_empty: bool = False) -> None:
        """Look every `poll_seconds` until ``wait(seconds)`` is True, or the queue and the cluster are empty."""
        while True:
            try:
                demand, census = self.step()
                if until_empty and demand.workers == 0 and census.all == 0:
                    return
            except (DatabaseUnavailable, EngineTrouble) as error:
                log.warning("%s; trying again", error)
            if wait(self._profile.poll_seconds):
                return

    def stop(self, impatient: Callable[[float], bool]) -> None:
        """Have all workers give their lanes back and end, for at most `grace_seconds` or until ``impatient(seconds)``."""
        give_up = self._clock() + self._profile.grace_seconds
        self._engine.drain()
        while self._clock() < give_up:
            try:
                left = self._engine.census().all
            except EngineTrouble as error:
                log.warning("%s; trying again", error)
            else:
                if left == 0:
                    log.info("all workers have ended")
                    return
                self._tell(f"waiting for {left} workers to give their lanes back")
            if impatient(min(1.0, self._profile.poll_seconds)):
                break
        log.warning("ending workers that have not ended by themselves")
        self._engine.kill()

    def _slow_down(self, failed: int) -> None:
        """Workers that fail are replaced after a pause that grows while they keep failing."""
        if failed:
            self._pause = min(LONGEST_PAUSE, max(1.0, 2 * self._pause))
            self._due = self._clock() + self._pause
            log.warning("%d workers failed; the next are asked for in %.0f s at the earliest", failed, self._pause)
        elif self._clock() > self._due + LONGEST_PAUSE:
            self._pause = 0.0

    def _tell(self, line: str) -> None:
        if line != self._told:
            log.info(line)
            self._told = line

    def _warn(self, line: str) -> None:
        if line and line != self._warned:
            log.warning(line)
        self._warned = line


def too_large(demand: Demand, profile: Profile) -> str:
    """Why no worker is started for some of the studies in the queue, if so.

    >>> too_large(Demand(0, 0, 0, larger=2, devices=4), Profile())
    'for 2 studies no worker is started: they want up to 4 devices, and these have 1; launch such with --devices-per-trial 4'
    >>> too_large(Demand(3, 50, 4), Profile())
    ''
    """
    if not demand.larger:
        return ""
    studies = "1 study" if demand.larger == 1 else f"{demand.larger} studies"
    return (
        f"for {studies} no worker is started: they want up to {demand.devices} devices, and these have "
        f"{profile.devices_per_trial}; launch such with --devices-per-trial {demand.devices}"
    )


def wanted_workers(demand: int, profile: Profile, unit: int) -> int:
    """How many workers there should be: whole units, and no more than the most, if a unit is no more than that.

    >>> wanted_workers(5, Profile(max=8), 1), wanted_workers(50, Profile(max=8), 1), wanted_workers(0, Profile(min=2), 1)
    (5, 8, 2)
    >>> wanted_workers(5, Profile(max=8), 4), wanted_workers(9, Profile(max=10), 4), wanted_workers(1, Profile(max=1), 4)
    (8, 8, 4)
    """
    most = max(unit, profile.max - profile.max % unit)
    return min(most, _in_units(max(profile.min, min(demand, profile.max)), unit))


def _in_units(count: int, unit: int) -> int:
    return -(-count // unit) * unit

"""How long a session works on its study: until it is searched, the worker stops, or it is another study's turn."""

from __future__ import annotations

import time
from collections.abc import Callable

from service.store import Store, StudyState
from service.store.records import SEARCHED, Lease

_ASK_SECONDS = 1.0
"""Interval at which the database is queried for waiting studies."""


class Tenure:
    """The tenure of one lease. A turn begins with the first epoch, so that every turn makes progress."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        *,
        stopping: Callable[[], bool],
        turn_seconds: float,
    ) -> None:
        self._store = store
        self._lease = lease
        self._stopping = stopping
        self._turn_seconds = turn_seconds
        self._began: float | None = None
        self._asked = 0.0
        self._left: tuple[float, float] | None = None
        """When the database was asked for the study's time, and how many seconds were left."""

    def begin(self) -> None:
        """Call after every epoch; the first call begins the turn."""
        self._began = self._began or time.monotonic()

    def goes_on(self, state: StudyState) -> bool:
        """Whether to train another round of a study in ``state``."""
        if state not in SEARCHED or self._stopping():
            return False
        turn_is_over = self._began is not None and time.monotonic() - self._began > self._turn_seconds
        return not (turn_is_over and self._others_wait())

    def _others_wait(self) -> bool:
        """Whether another study waits for a worker, queried at most every `_ASK_SECONDS`."""
        now = time.monotonic()
        if now - self._asked < _ASK_SECONDS:
            return False
        self._asked = now
        return self._store.leases.others_wait(self._lease)

    def time_is_up(self) -> bool:
        """Whether the study's time is up, so that trials end; known to a second, for its budget may be changed."""
        now = time.monotonic()
        if self._left is None or now - self._left[0] > _ASK_SECONDS:
            self._left = now, self._store.studies.seconds_left(self._lease.study_id)
        at, left = self._left
        return now - at > left

    def trials_may_come(self) -> bool:
        """When all lanes are idle: whether trials may still come, from a lost worker or under a cap on parallel trials."""
        study = self._store.studies.get(self._lease.study_id)
        if study.state not in SEARCHED or self._store.studies.seconds_left(study.id) < 0:
            return False
        open_asks = study.budget_trials - study.counts.finished - study.counts.running - study.counts.waiting
        return study.counts.waiting > 0 or open_asks > 0

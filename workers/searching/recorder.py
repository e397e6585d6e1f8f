"""Write-behind: a thread writes the results of the training loop, so that the loop never waits for the database.

Everything is written in order, and once; the store itself waits for a lost connection.
The loop learns of a lost lease, or of a paused study, at its next `check`, and of trials to stop by `stopping`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from contextvars import copy_context

from service.store import Store, StudyState
from service.store.records import Lease, Report, TrialResult
from service.tracing import span
from workers.liveness import Renewal
from workers.timing import Timer

FLUSH_SECONDS = 0.2
LONGEST_SECONDS = 3.0
STOPS_SECONDS = 2.0
"""Interval at which the database is asked for trials to stop, however long an epoch takes."""
_SHARE = 0.02
"""Of a recorder's time that the database may take: many workers on a slow one write more at a time, and less often."""


class Recorder:
    """The writer of one lease. `put`, `check`, `flush` and `close` belong to the training thread."""

    def __init__(self, store: Store, lease: Lease, renewal: Renewal) -> None:
        self._store = store
        self._lease = lease
        self._renewal = renewal
        self.timer = Timer()
        self._condition = threading.Condition()
        self._reports: list[Report] = []
        self._results: list[TrialResult] = []
        self._writing = False
        self._closing = False
        self._hurry = False
        self._state = StudyState.RUNNING
        self._stopping: frozenset[int] = frozenset()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="recorder", daemon=True)
        self._thread.start()

    def put(self, reports: Sequence[Report], results: Sequence[TrialResult]) -> None:
        """Enqueue reports and results; returns immediately."""
        with self._condition:
            self._reports += reports
            self._results += results

    def check(self) -> StudyState:
        """The study's state as last seen.

        Raises:
            LeaseLost: The lease was taken away: stop, drop everything.
            DatabaseUnavailable: The database did not come back.
        """
        with self._condition:
            if self._error is not None:
                raise self._error
            return self._state

    def stopping(self) -> frozenset[int]:
        """Ids of the trials that somebody has stopped, as last seen."""
        with self._condition:
            return self._stopping

    def flush(self) -> StudyState:
        """Wait until everything enqueued so far is written; returns and raises as `check`."""
        with self._condition:
            self._hurry = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._error is not None or not (self._pending() or self._writing))
        return self.check()

    def close(self) -> None:
        """Write everything pending and stop the thread; errors are raised by `check` only."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join()

    def _pending(self) -> bool:
        return bool(self._reports or self._results)

    def _run(self) -> None:
        looked, stopping, pause = -math.inf, self._stopping, FLUSH_SECONDS
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closing or self._hurry, timeout=pause)
                self._hurry = False
                if self._closing and not self._pending():
                    return
                reports, self._reports = self._reports, []
                results, self._results = self._results, []
                self._writing = True
            begun = time.monotonic()
            try:
                with self.timer.section("database"):
                    state = self._write(reports, results)
                    if time.monotonic() - looked > STOPS_SECONDS:
                        looked, stopping = time.monotonic(), self._store.stops.asked(self._lease)
            except Exception as error:  # handed to the training thread by `check`
                with self._condition:
                    self._error, self._writing = error, False
                    self._condition.notify_all()
                return
            pause = min(max(FLUSH_SECONDS, (time.monotonic() - begun) / _SHARE), LONGEST_SECONDS)
            with self._condition:
                self._state, self._writing = state or self._state, False
                self._stopping = stopping
                self._condition.notify_all()

    def _write(self, reports: Sequence[Report], results: Sequence[TrialResult]) -> StudyState | None:
        renewed = self._renewal.check()  # older than what `record` returns
        if not reports and not results:
            return renewed
        with span("report", reports=len(reports), told=len(results)):
            return self._store.trials.record(self._lease, reports, results)

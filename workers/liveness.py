"""A worker's liveness: heartbeats, the renewal of its lease, and signals to stop."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from service.errors import DatabaseUnavailable, LeaseLost
from service.store import Store, StudyState
from service.store.records import Lease

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
RARE_SECONDS = 20.0
"""Longest interval between the heartbeats of a worker that does the same for long; it doubles from `BEAT_SECONDS`."""
IDLE_SECONDS = 15.0
"""Interval between the heartbeats of a worker that has nothing to do, of which there may be many."""


@dataclass
class Stop:
    """Set by a signal, checked between epochs."""

    asked: threading.Event = field(default_factory=threading.Event)

    def on_signals(self) -> None:
        """Catch SIGTERM and SIGINT."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self.asked.set())

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.asked.is_set()


class Renewal:
    """Renews a lease in a thread of its own while its block runs: a worker that loads or compiles for long keeps it."""

    def __init__(self, store: Store, lease: Lease, seconds: float) -> None:
        self._store = store
        self._lease = lease
        self._seconds = seconds
        self._state: StudyState | None = None
        self._lost: LeaseLost | None = None
        self._heart = Heart(self._renew, seconds / 3)

    def __enter__(self) -> Renewal:
        self._heart.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._heart.__exit__()

    def check(self) -> StudyState | None:
        """The study's state, if the lease has been renewed since the last call.

        Raises:
            LeaseLost: The lease was taken away.
        """
        if self._lost is not None:
            raise self._lost
        state, self._state = self._state, None
        return state

    def _renew(self) -> None:
        if self._lost is None:
            try:
                self._state = self._store.leases.renew(self._lease, self._seconds)
            except LeaseLost as error:
                self._lost = error


class Pulse:
    """The heartbeats of a worker: they show others that it is alive, and what it does."""

    def __init__(self, store: Store, worker_id: str) -> None:
        self._store = store
        self.worker_id = worker_id
        self._at = -math.inf
        self._working = True

    def beat(self, stats: Mapping[str, Any]) -> None:
        """Report ``stats`` now."""
        self._at, self._working = time.monotonic(), True
        self._store.workers.beat(self.worker_id, stats)

    def idle(self) -> None:
        """Report that the worker is idle, at most every `IDLE_SECONDS`."""
        if self._working or time.monotonic() - self._at > IDLE_SECONDS:
            self.beat({"state": "idle"})
            self._working = False

    def during(self, stats: Callable[[], Mapping[str, Any]]) -> Heart:
        """A context manager that reports ``stats()`` while its block runs, every `BEAT_SECONDS` and then more rarely."""
        return Heart(lambda: self.beat(stats()), BEAT_SECONDS, RARE_SECONDS)


class Heart:
    """Calls ``beat`` after ``seconds`` in a thread while its block runs, then after twice as long, up to ``longest``."""

    def __init__(self, beat: Callable[[], None], seconds: float, longest: float | None = None) -> None:
        self._beat = beat
        self._seconds = seconds
        self._longest = seconds if longest is None else longest
        self._done = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="heart", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._seconds
        while not self._done.wait(pause):
            pause = min(2 * pause, self._longest)
            try:
                self._beat()
            except DatabaseUnavailable as error:
                log.warning("heartbeat: %s", error)

"""Timing of a worker: seconds by kind of work, to know the share of training.

A thread that runs beside the training is charged with its processor time, as its waiting costs nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Timer:
    """Adds up seconds by section. Sections do not nest; not thread-safe."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._processor: dict[str, float] = defaultdict(float)
        self._start = time.perf_counter()

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Charge the time of the block to ``name``."""
        start, processor = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start
            self._processor[name] += time.thread_time() - processor

    def add(self, name: str, seconds: float) -> None:
        """Charge ``seconds`` that were measured elsewhere to ``name``."""
        self._seconds[name] += seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the timer was created."""
        return time.perf_counter() - self._start

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each section so far."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}

    def shares(self) -> dict[str, float]:
        """Each section's share of all time since the start; `other` is the rest."""
        elapsed = max(self.elapsed, 1e-9)
        shares = {name: round(seconds / elapsed, 4) for name, seconds in self._seconds.items()}
        return {**shares, "other": round(max(0.0, 1.0 - sum(shares.values())), 4)}

    def processor_shares(self, elapsed: float) -> dict[str, float]:
        """Each section's processor seconds of the thread that ran it, as a share of ``elapsed`` seconds."""
        return {name: round(seconds / max(elapsed, 1e-9), 4) for name, seconds in self._processor.items()}

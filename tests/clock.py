"""A clock for tests of waiting: no time passes but what the code under test sleeps."""

from __future__ import annotations


class Clock:
    """Stands in for the module `time` where it is set into another module."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass, at once."""
        self.now += seconds
        self.naps.append(seconds)

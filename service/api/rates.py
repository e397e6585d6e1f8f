"""How often somebody may do something. Thread-safe; each process counts its own."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_SENDERS = 10_000
"""Senders that are remembered; the others have not sent anything for the longest time."""


class Buckets:
    """A bucket for each sender, filled evenly by ``per_minute``: a burst may use a minute's at once."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By sender: what is left, and when that was."""

    def take(self, sender: str) -> int:
        """Take one out of a sender's bucket; if it is empty, the seconds until there is one."""
        now, rate = self._clock(), self.per_minute / 60.0
        with self._lock:
            left, at = self._left.pop(sender, (float(self.per_minute), now))
            left = min(float(self.per_minute), left + (now - at) * rate)
            allowed = left >= 1.0
            self._left[sender] = (left - 1.0 if allowed else left, now)
            if len(self._left) > _MOST_SENDERS:
                self._left.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1.0 - left) / rate))

"""When leases have ended, although the clock by which they are valid may be set: a monotonic one watches them, too."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping

OF_ANOTHER_TIME = 10.0
"""A lease that is valid for so many times its time was renewed before the clock was set back."""


def has_ended(expires_at: float, now: float, seen: float, seconds: float, *, waits: bool) -> bool:
    """Whether a lease of ``seconds``, ``seen`` unchanged for some, has ended; ``waits`` unless it need not be seen so."""
    longest = OF_ANOTHER_TIME * seconds if waits else math.inf
    return seen >= (seconds / 2 if waits else 0.0) and not 0 <= expires_at - now <= longest


class Sightings:
    """When this process first saw the leases as they are now, by its monotonic clock. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[int, tuple[float, float]] = {}

    def since(self, leases: Mapping[int, float]) -> dict[int, float]:
        """For how many seconds each lease, given when it expires, has been seen with this time."""
        now = time.monotonic()
        with self._lock:
            before, self._seen = self._seen, {}
            for token, expires in leases.items():
                seen = before.get(token)
                self._seen[token] = seen if seen is not None and seen[0] == expires else (expires, now)
            return {token: now - first for token, (_, first) in self._seen.items()}

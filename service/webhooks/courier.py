"""Carries out what is due: numbers events, which puts them into the queues of webhooks, and sends what waits there.

Any number of processes may do so at the same time: what one has taken no other takes, until its time is over. A process
that is killed while it sends has told nobody whether it was received, so it is sent again: at least once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from service.store import Store
from service.store.webhooks import Outgoing
from service.webhooks.sending import SECONDS, Sender
from service.webhooks.signing import headers

log = logging.getLogger(__name__)

PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds between two attempts, before each is stretched by up to a tenth by chance; after the last one it is given up."""
LASTING_SECONDS = 5 * 86_400.0
"""After this time without any success a webhook is switched off."""
_AT_ONCE = 20
_HELD_SECONDS = 4 * SECONDS


class Courier:
    """Sends what is due."""

    def __init__(
        self,
        store: Store,
        sender: Sender,
        *,
        stretch: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._sender = sender
        self._stretch = stretch
        self._wall = wall

    def turn(self) -> int:
        """Number events, take some of what is due, and send it; returns how much that was."""
        self._store.events.publish()
        taken = self._store.webhooks.take(_AT_ONCE, _HELD_SECONDS)
        if taken:
            with ThreadPoolExecutor(len(taken), "webhook") as threads:
                list(threads.map(self._send, taken))
        return len(taken)

    def _send(self, outgoing: Outgoing) -> None:
        body = outgoing.payload.encode()
        sent = self._sender.send(outgoing.url, headers(outgoing.message, int(self._wall()), body, outgoing.secrets), body)
        last = outgoing.attempt >= len(PAUSES)
        pause = None if sent.received or last else PAUSES[outgoing.attempt] * (1.0 + 0.1 * self._stretch())
        ms = 1000 * sent.seconds
        self._store.webhooks.tell(
            outgoing, received=sent.received, status=sent.status, error=sent.error, ms=ms, again_in=pause
        )
        if sent.gone:
            self._store.webhooks.disable(outgoing.webhook_id, "the receiver answered 410: it wants no more")
        elif not sent.received:
            why = f"nothing was received for {LASTING_SECONDS / 86_400:g} days"
            self._store.webhooks.disable(outgoing.webhook_id, why, failing_seconds=LASTING_SECONDS)
            log.warning("webhook %s: %s", outgoing.webhook_id, sent.error or f"answered {sent.status}")

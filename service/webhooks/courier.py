"""Carries out what is due: numbers events, which puts them into the queues of webhooks, and sends what waits there.

Any number of processes may do so at the same time: what one has taken no other takes, until its time is over. A process
that is killed while it sends has told nobody whether it was received, so it is sent again: at least once.

Receivers do not wait for each other. Each gets its next messages when it has answered the last ones; one that fails gets
one at a time, and those that fail take no more than half of the threads.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from service.errors import DatabaseUnavailable
from service.store import Store
from service.store.webhooks import Outgoing
from service.webhooks.sending import AT_ONCE, SECONDS, Sender
from service.webhooks.signing import headers

log = logging.getLogger(__name__)

PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds between two attempts, before each is stretched by up to a tenth by chance; after the last one it is given up."""
LASTING_SECONDS = 5 * 86_400.0
"""After this time without any success a webhook is switched off."""
TO_EACH = 5
"""Messages that a receiver is sent at the same time."""
_LOOK_SECONDS = 1.0
"""Between two looks for what is due while some receivers have not answered yet."""
_HELD_SECONDS = 4 * SECONDS


class Courier:
    """Sends what is due. Belongs to one thread, but sends in others."""

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
        self._threads = ThreadPoolExecutor(AT_ONCE, "webhook")
        self._under_way: dict[Future[None], Outgoing] = {}

    def turn(self) -> int:
        """Number events, take what is due of receivers that have answered, and begin to send it; returns how much it was.

        Where nothing is, but messages are under way, it waits a little for answers, and returns their number or one.
        """
        self._store.events.publish()
        taken = [each for failing in (False, True) for each in self._take(failing=failing)]
        if taken or not self._under_way:
            return len(taken)
        return max(1, len(wait(self._under_way, _LOOK_SECONDS, FIRST_COMPLETED).done))

    def finish(self) -> None:
        """Wait for the answers to all that is under way."""
        wait(self._under_way)

    def close(self) -> None:
        """Begin no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, *, failing: bool) -> Sequence[Outgoing]:
        """Take some of what is due to receivers that fail, or of all others, and begin to send it."""
        self._under_way = {future: each for future, each in self._under_way.items() if not future.done()}
        room = AT_ONCE - len(self._under_way)
        if failing:
            room = min(room, AT_ONCE // 2 - sum(each.failing for each in self._under_way.values()))
        busy = {each.webhook_id for each in self._under_way.values()}
        each = 1 if failing else TO_EACH
        taken = self._store.webhooks.take(room, _HELD_SECONDS, failing=failing, each=each, but=busy) if room > 0 else ()
        for outgoing in taken:
            self._under_way[self._threads.submit(self._send, outgoing)] = outgoing
        return taken

    def _send(self, outgoing: Outgoing) -> None:
        try:
            self._deliver(outgoing)
        except DatabaseUnavailable:
            log.warning("message %s may be sent twice: the database does not respond", outgoing.message)
        except Exception:
            log.exception("message %s can't be sent", outgoing.message)

    def _deliver(self, outgoing: Outgoing) -> None:
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

"""What happens to all studies, for the requests of one process that follow it: one reader, however many follow.

While somebody follows, one task numbers and reads the events of the database; the latest stay in memory, as they are sent.
It also finds out which tokens have ended, so that no stream outlives its token. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from anyio import to_thread

from service.api.access import Caller
from service.api.models import EventOut
from service.errors import DatabaseUnavailable
from service.store import Store
from service.store.records import EventRecord
from service.store.sharing import EVERYBODY

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
TOKEN_SECONDS = 10.0
"""How often it is found out which tokens are valid."""
_REMEMBERED = 2000
_AT_ONCE = 500
_SOME = 500


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it is sent, and who may see it."""

    seq: int
    text: str
    study_id: int
    owner: str
    shared_with: frozenset[str]

    def is_for(self, owner: str | None) -> bool:
        """Whether an owner may see it; None for one who sees everything."""
        return owner in (None, self.owner) or not self.shared_with.isdisjoint((owner, EVERYBODY))


class Feed:
    """The events of a store."""

    def __init__(self, store: Store, *, poll_seconds: float = POLL_SECONDS, token_seconds: float = TOKEN_SECONDS) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._token_seconds = token_seconds
        self._latest: deque[Told] = deque(maxlen=_REMEMBERED)
        self._last = 0
        self._following = 0
        self._tokens: Counter[int] = Counter()
        self._ended: set[int] = set()
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @contextmanager
    def followed(self, caller: Caller) -> Iterator[None]:
        """A time in which somebody follows: events are read."""
        token = caller.token.id if caller.token else None
        self._following += 1
        self._tokens.update([token] if token else [])
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            yield
        finally:
            self._following -= 1
            if token:
                self._tokens[token] -= 1
                self._tokens += Counter()  # forgets those that nobody uses

    def has_ended(self, caller: Caller) -> bool:
        """Whether a caller's token was revoked or has expired since it began to follow."""
        return caller.token is not None and caller.token.id in self._ended

    async def begin(self, since: int | None) -> int:
        """The number of the event after which a follower begins: ``since``, at most that of the latest."""
        await to_thread.run_sync(self._store.events.publish)
        last = await to_thread.run_sync(self._store.events.last)
        return last if since is None else min(since, last)

    async def after(self, seq: int, seconds: float) -> Sequence[Told]:
        """Events after the ``seq``-th, the first ones; waits for some, at most so many ``seconds``."""
        news = self._news
        found = await (self._told(seq) if seconds > 0 else self._stored(seq))
        if not found and seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await news.wait()
            except TimeoutError:
                return ()
            found = await self._told(seq)
        return found

    async def _told(self, seq: int) -> Sequence[Told]:
        if self._latest and self._latest[0].seq <= seq + 1:
            return () if seq >= self._last else [told for told in self._latest if told.seq > seq]
        if self._last and seq >= self._last:
            return ()
        return await self._stored(seq)

    async def _stored(self, seq: int) -> Sequence[Told]:
        return [_told(record) for record in await to_thread.run_sync(self._store.events.since, seq, _SOME)]

    async def _read(self) -> None:
        """Read what is new, and which tokens are valid, until nobody follows."""
        checked = -math.inf
        self._latest.clear()
        self._last = 0
        while self._following:
            try:
                if time.monotonic() > checked + self._token_seconds:
                    await self._check_tokens()
                    checked = time.monotonic()
                await self._read_new()
            except DatabaseUnavailable:
                log.warning("no news of studies: the database does not respond")
            await asyncio.sleep(self._poll_seconds)

    async def _read_new(self) -> None:
        if not self._last:
            self._last = await to_thread.run_sync(self._store.events.last)
            self._tell()  # those that have begun with an earlier number
        await to_thread.run_sync(self._store.events.publish)
        while records := await to_thread.run_sync(self._store.events.since, self._last, _AT_ONCE):
            shares = {record.study_id: record.shared_with for record in records}
            for place, told in enumerate(self._latest):  # what is not shared any more is not told any more
                if shares.get(told.study_id, told.shared_with) != told.shared_with:
                    self._latest[place] = replace(told, shared_with=shares[told.study_id])
            self._latest += [_told(record) for record in records]
            self._last = records[-1].seq
            self._tell()

    def _tell(self) -> None:
        """Wake all that wait for news."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _check_tokens(self) -> None:
        asked = sorted(self._tokens)
        valid: set[int] = set()
        for start in range(0, len(asked), _AT_ONCE):
            valid |= await to_thread.run_sync(self._store.tokens.valid, asked[start : start + _AT_ONCE])
        self._ended = set(asked) - valid


async def stream(
    feed: Feed, caller: Caller, since: int | None, seconds: float, ping_seconds: float
) -> AsyncGenerator[str, None]:
    """The text of a stream of all events that a caller may see, with a sign of life where nothing happens.

    Its first line has the number with which the stream may be resumed although nothing has happened.
    """
    end = time.monotonic() + seconds
    with feed.followed(caller):
        seq = await feed.begin(since)
        yield f"retry: 2000\nid: {seq}\n\n"
        while not feed.has_ended(caller):
            left = end - time.monotonic()
            told = await feed.after(seq, max(0.0, min(left, ping_seconds)))
            if told:
                seq = told[-1].seq
                yield "".join(each.text for each in told if each.is_for(caller.owner)) or f"id: {seq}\n\n"
            elif left <= 0:
                return
            else:
                yield ": nothing new\n\n"


def _told(record: EventRecord) -> Told:
    text = f"event: {record.kind}\nid: {record.seq}\ndata: {EventOut.of(record).model_dump_json()}\n\n"
    return Told(record.seq, text, record.study_id, record.owner, record.shared_with)

"""News of studies: one reader for all that wait, so that waiting costs nothing.

A request that waits for news of a study sleeps on an event of this study. While anything is waited for, one task reads what
has changed, of all these studies in one query. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from anyio import to_thread

from service.errors import DatabaseUnavailable
from service.store import Store

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
GONE = ""
"""The tag of a study that has been deleted."""
_AT_ONCE = 500


class Changes:
    """What changes in a store, for the requests of one process."""

    def __init__(self, store: Store, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._waiting: Counter[int] = Counter()
        self._tags: dict[int, str] = {}
        self._news: dict[int, asyncio.Event] = {}
        self._reader: asyncio.Task[None] | None = None

    async def after(self, study_id: int, tag: str, seconds: float) -> bool:
        """Wait until a study's tag (`Studies.tags`) is another one, at most so many ``seconds``; returns whether it is."""
        self._waiting[study_id] += 1
        try:
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read())
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self._tags.get(study_id, tag) == tag:
                        await self._news.setdefault(study_id, asyncio.Event()).wait()
                    return True
            return False
        finally:
            self._waiting[study_id] -= 1
            if not self._waiting[study_id]:
                for known in (self._waiting, self._tags, self._news):
                    known.pop(study_id, None)

    async def _read(self) -> None:
        """Read the tags of what is waited for, until nothing is."""
        while self._waiting:
            try:
                tags = await to_thread.run_sync(self._tags_of, list(self._waiting))
            except DatabaseUnavailable:
                log.warning("no news of studies: the database does not respond")
                tags = {}
            for study_id, tag in tags.items():
                if study_id in self._waiting and self._tags.get(study_id) != tag:
                    self._tags[study_id] = tag
                    self._news.pop(study_id, asyncio.Event()).set()
            await asyncio.sleep(self._poll_seconds)

    def _tags_of(self, ids: list[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for start in range(0, len(ids), _AT_ONCE):
            found |= self._store.studies.versions(ids[start : start + _AT_ONCE])
        return dict.fromkeys(ids, GONE) | found

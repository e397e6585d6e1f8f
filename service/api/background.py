"""What an API process does by itself, beside answering: it sends what webhooks wait for, and deletes what is old or left.

Every API process does, on one database: who does what is settled there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from anyio import to_thread
from fastapi import FastAPI
from starlette.types import Lifespan

from service.api.retention import prune_by_settings
from service.errors import DatabaseUnavailable, NotReady, StorageFull
from service.leftovers import Leftovers
from service.settings import Settings
from service.store import Store
from service.trained import TrainedModels
from service.webhooks.courier import Courier
from service.webhooks.sending import Sender

log = logging.getLogger(__name__)

TURN_SECONDS = 1.0
TIDY_SECONDS = 3600.0


def lifespan(store: Store, settings: Settings, leftovers: Leftovers, models: TrainedModels) -> Lifespan[FastAPI]:
    """The time in which an application on a store runs."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        sender = Sender(private=settings.webhooks_private)
        courier = Courier(store, sender)
        working = [
            asyncio.create_task(_repeat(courier.turn)),
            asyncio.create_task(_repeat(_Tidying(store, settings, leftovers, models).turn)),
        ]
        try:
            yield
        finally:
            for task in working:
                task.cancel()
            for task in working:
                with suppress(asyncio.CancelledError):
                    await task
            courier.close()
            sender.close()

    return running


class _Tidying:
    """Deletes what is old every hour, and then, or after something was deleted, what is left among the objects.

    It also moves what earlier versions have left in the database, one model at a time.
    """

    def __init__(self, store: Store, settings: Settings, leftovers: Leftovers, models: TrainedModels) -> None:
        self._store, self._settings, self._leftovers, self._models = store, settings, leftovers, models
        self._tidied = -math.inf
        self._moving = False

    def turn(self) -> int:
        """Do what is due."""
        if time.monotonic() > self._tidied + TIDY_SECONDS:
            self._tidied = time.monotonic()
            self._moving = True
            self._leftovers.appear()
            prune_by_settings(self._store, self._settings, self._leftovers)
        self._leftovers.turn()
        self._moving = self._moving and self._moved()
        return int(self._moving)

    def _moved(self) -> bool:
        """Whether a model was moved; where it can't be, it is tried again in an hour, or when somebody reads it."""
        try:
            return self._models.move()
        except (NotReady, StorageFull, OSError) as error:
            log.warning("models of an earlier version stay in the database: %s", error)
            return False


async def _repeat(turn: Callable[[], int]) -> None:
    """Take one turn after the other, at once while there was something to do, else after a pause."""
    while True:
        done = 0
        try:
            done = await to_thread.run_sync(turn, abandon_on_cancel=True)
        except DatabaseUnavailable:
            log.warning("work in the background waits: the database does not respond")
        except Exception:
            log.exception("a turn of the work in the background has failed")
        await asyncio.sleep(0.0 if done else TURN_SECONDS)

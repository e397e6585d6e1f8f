"""What an API process does by itself, beside answering: it sends what webhooks wait for, and deletes what is old.

Every API process does, on one database: who does what is settled there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio import to_thread
from fastapi import FastAPI
from starlette.types import Lifespan

from service.api.retention import prune_by_settings
from service.errors import DatabaseUnavailable
from service.settings import Settings
from service.store import Store
from service.webhooks.courier import Courier
from service.webhooks.sending import Sender

log = logging.getLogger(__name__)

TURN_SECONDS = 1.0
TIDY_SECONDS = 3600.0


def lifespan(store: Store, settings: Settings) -> Lifespan[FastAPI]:
    """The time in which an application on a store runs."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        sender = Sender(private=settings.webhooks_private)
        working = asyncio.create_task(_work(store, settings, Courier(store, sender)))
        try:
            yield
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            sender.close()

    return running


async def _work(store: Store, settings: Settings, courier: Courier) -> None:
    tidied = -math.inf
    while True:
        sent = 0
        try:
            sent = await to_thread.run_sync(courier.turn, abandon_on_cancel=True)
            if time.monotonic() > tidied + TIDY_SECONDS:
                tidied = time.monotonic()
                await to_thread.run_sync(prune_by_settings, store, settings, abandon_on_cancel=True)
        except DatabaseUnavailable:
            log.warning("nothing is sent to webhooks: the database does not respond")
        except Exception:
            log.exception("a turn of the work in the background has failed")
        await asyncio.sleep(0.0 if sent else TURN_SECONDS)

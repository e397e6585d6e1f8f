"""Answers that go on: streams of events. They end when the process does, so that it need not cut them off.

There may be ten thousand of them. So a stream has no task but that of its request, and is sent when routes and the other
middleware have done their part and are gone with all that they keep. Whether its client is there is looked up when something
is sent, from time to time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

from anyio import CancelScope
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

Texts = AsyncGenerator[str, None]
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_LOOK_SECONDS = 10.0
_KEY = "stream"
_END = {"type": "http.response.body", "body": b"", "more_body": False}


class Streams:
    """The open streams of one application. Belongs to one event loop."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[Any]] = set()
        self._ending = False

    def answer(self, texts: Texts) -> StreamingResponse:
        """The answer that sends these texts."""
        return _Begin(texts, media_type="text/event-stream", headers=_HEADERS)

    def end(self) -> None:
        """End all of them; clients that follow connect again, to another process or after a restart."""
        self._ending = True
        for each in self._open:
            each.cancel()

    async def send(self, texts: Texts, receive: Receive, send: Send) -> None:
        """Send, until there is nothing more, the client is gone, or all streams end."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            looked = time.monotonic()
            async for text in texts:
                if time.monotonic() > looked + _LOOK_SECONDS:
                    looked = time.monotonic()
                    if await _is_gone(receive):
                        return
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            await send(_END)
        except asyncio.CancelledError:
            if not self._ending:
                raise
            task.uncancel()
            await send(_END)
        except DatabaseUnavailable as error:
            log.warning("a stream ends: %s", error)  # its client connects again
            await send(_END)
        finally:
            self._open.discard(task)
            await texts.aclose()


class Sending:
    """ASGI middleware that sends the streams of the application that it is around."""

    def __init__(self, app: ASGIApp, streams: Streams) -> None:
        self._app = app
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, then send the stream, if the answer is one."""
        await self._app(scope, receive, send)
        texts: Texts | None = scope.get("state", {}).pop(_KEY, None)
        if texts is not None:
            await self._streams.send(texts, receive, send)


class _Begin(StreamingResponse):
    """The begin of a stream; its texts are left to `Sending`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        scope["state"][_KEY] = self.body_iterator


async def _is_gone(receive: Receive) -> bool:
    with CancelScope() as at_once:
        at_once.cancel()
        message = await receive()
        return bool(message["type"] == "http.disconnect")
    return False

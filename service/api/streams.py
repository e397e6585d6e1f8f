"""Answers that go on: streams of events. They end when the process does, so that it need not cut them off."""

from __future__ import annotations

from collections.abc import AsyncIterator

from anyio import CancelScope
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class Streams:
    """The open streams of one application. Belongs to one event loop."""

    def __init__(self) -> None:
        self._open: set[CancelScope] = set()

    def answer(self, events: AsyncIterator[str]) -> StreamingResponse:
        """The answer that sends these texts."""
        return _Stream(events, self._open)

    def end(self) -> None:
        """End all of them; clients that follow connect again, to another process or after a restart."""
        for each in self._open:
            each.cancel()


class _Stream(StreamingResponse):
    def __init__(self, events: AsyncIterator[str], all_open: set[CancelScope]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_HEADERS)
        self._all_open = all_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, until there is nothing more, the client is gone, or all streams end."""
        with CancelScope() as mine:
            self._all_open.add(mine)
            try:
                await super().__call__(scope, receive, send)
            finally:
                self._all_open.discard(mine)
        if mine.cancelled_caught:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

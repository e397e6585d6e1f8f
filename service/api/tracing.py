"""A span for each request, joined to the trace of its sender."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.access import OPEN
from service.tracing import CARRIED, joined, span


class Traces:
    """ASGI middleware: a span for each request but those of probes; a `traceparent` of the sender is its parent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within a span."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(CARRIED.encode(), b"").decode("latin-1")
        with joined({CARRIED: given}), span(f"{scope['method']} {scope['path']}") as request:

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._app(scope, receive, sending)

"""An application as a process: uvicorn's server, which ends streams before it waits for answers."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.api.streams import Streams

_NOT_STARTED = 3


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.end()
        await super().shutdown(sockets)


def run(app: FastAPI, **options: Any) -> None:
    """Serve until a signal arrives; ``options`` are those of `uvicorn.Config`.

    Raises:
        SystemExit: It could not start.
    """
    server = _Server(uvicorn.Config(app, **options), app.state.streams)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_NOT_STARTED)

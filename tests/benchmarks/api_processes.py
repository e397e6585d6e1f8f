"""API processes for benchmarks, on SQLite or a real PostgreSQL; and a lean client, which leaves them the cores."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from service.cli.supervisor import free_port
from service.client.connection import HttpClient
from tests.postgres import start_postgres

_FILES = 65_536


def many_files() -> None:
    """Let this process and those that it starts have many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def serving(database: str, processes: int) -> Iterator[Sequence[tuple[int, subprocess.Popen[bytes]]]]:
    """API processes on one new database: their ports and themselves."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {**os.environ, "REGSEARCH_HOME": str(home), "REGSEARCH_LOG_LEVEL": "warning"}
        if database == "postgresql":
            server = start_postgres(home / "postgres")
            stack.callback(server.cleanup)
            environment["REGSEARCH_DB_URL"] = server.get_uri()
        found = []
        for _ in range(processes):
            port = free_port()
            command = [sys.executable, "-m", "service.cli", "serve"]
            process = subprocess.Popen(command, env={**environment, "REGSEARCH_PORT": str(port)})
            stack.callback(_end, process)
            client = HttpClient(f"http://127.0.0.1:{port}")
            client.wait_until_ready(300)
            client.close()
            found.append((port, process))
        yield found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


class Connection:
    """One connection, which is kept open, for requests one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, method: str, path: str, body: Any = None) -> tuple[int, bytes, float]:
        """The status and content of an answer, and after how many seconds it was there."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        assert self._reader is not None
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\ncontent-length: {len(content)}\r\n"
        head += "content-type: application/json\r\n" if content else ""
        start = time.perf_counter()
        self._writer.write(f"{head}\r\n".encode() + content)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        headers = _headers(answer)
        found = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return int(answer[9:12]), found, time.perf_counter() - start

    def close(self) -> None:
        """Close it."""
        if self._writer is not None:
            self._writer.close()


def _headers(answer: bytes) -> Mapping[str, str]:
    lines = answer.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

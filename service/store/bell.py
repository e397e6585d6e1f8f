"""How an idle worker learns of work: PostgreSQL tells it, and a worker that hears nothing looks rarely. Thread-safe: no.

`announce` rings for all that listen, once its transaction is committed. SQLite has no such thing, nor has a pooler that
lends a connection for one transaction: there a worker looks, at first often, then more and more rarely.
"""

from __future__ import annotations

import math
import random
import threading
import time
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from service.errors import DatabaseUnavailable
from service.store import tables as t
from service.store.engine import Database

CHANNEL = "regsearch_work"

_SHORTEST = 0.05
_LONGEST = {"sqlite": 0.5, "postgresql": 5.0}
"""Longest pause between two looks, in seconds; a file on the same machine is looked into at little cost."""
_LISTENING_SECONDS = 15.0
"""After which a worker looks although nobody has rung: trials also return when a lease expires."""
_SLICE_SECONDS = 0.25
"""How long a worker may take to notice that it is to stop."""
_SPREAD_SECONDS = 0.002
"""Idle workers look one after the other, in this mean distance, and not all at once."""


def announce(connection: Connection) -> None:
    """Let idle workers know, as soon as this transaction is committed, that there may be work."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")


class Bell:
    """What an idle worker waits for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pause = _SHORTEST
        self._connection: Connection | None = None
        self._spread = 0.0

    def wait(self, stopped: threading.Event, most: float = math.inf) -> None:
        """Wait until there may be work, until ``stopped``, or for ``most`` seconds."""
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST[self._database.engine.dialect.name])
        if self._database.is_sqlite or self._database.connections.pooler:
            stopped.wait(min(pause, most))
        elif self._connection is None:
            self._listen()  # then the queue is looked at once more, for what came between the last look and now
            stopped.wait(_SHORTEST)
        elif self._heard(stopped, min(_LISTENING_SECONDS, most)):
            stopped.wait(random.uniform(0.0, self._spread))

    def hush(self) -> None:
        """Listen no longer: the worker has work, or ends."""
        self._pause = _SHORTEST
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(SQLAlchemyError):
                connection.close()

    def _listen(self) -> None:
        alive = select(func.count()).select_from(t.workers).where(t.workers.c.left_at.is_(None))
        try:
            self._spread = _SPREAD_SECONDS * self._database.read(lambda connection: connection.execute(alive).scalar_one())
            connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # it is closed, not given to others that would be told, too
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
        except (SQLAlchemyError, DatabaseUnavailable):
            return  # the next look at the queue tells of it
        self._connection = connection

    def _heard(self, stopped: threading.Event, seconds: float) -> bool:
        assert self._connection is not None
        driver: Any = self._connection.connection.dbapi_connection
        end = time.monotonic() + seconds
        try:
            while not stopped.is_set() and time.monotonic() < end:
                if [*driver.notifies(timeout=_SLICE_SECONDS, stop_after=1)]:
                    return True
        except driver_errors():  # the server has ended the connection
            self.hush()
        return False


def driver_errors() -> type[Exception]:
    """What the driver raises."""
    import psycopg  # noqa: PLC0415  # optional

    return psycopg.Error

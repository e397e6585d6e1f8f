"""The connection to SQLite or PostgreSQL: pragmas, transactions, the database's clock, patience with lost connections.

Thread-safe. SQLite runs in WAL with `BEGIN IMMEDIATE` for every writing transaction, so that a read-then-write can't fail
half-way; PostgreSQL locks the study's row instead (see `trials`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, literal_column
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from service.errors import DatabaseUnavailable

T = TypeVar("T")

BUSY_SECONDS = 30.0
"""How long an SQLite writer waits for its turn."""


def normalize(url: str) -> URL:
    """The URL with the driver we ship: psycopg 3 for PostgreSQL.

    Raises:
        DatabaseUnavailable: The URL names neither SQLite nor PostgreSQL.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise DatabaseUnavailable(f"the database {backend!r} is not supported; use sqlite or postgresql")
    return parsed


def engine_options(url: URL) -> dict[str, Any]:
    """Options of `create_engine` that our engine and Optuna's both get."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    return {"pool_pre_ping": True, "pool_size": 8, "max_overflow": 8}


def make_engine(url: URL) -> Engine:
    """An engine for `Database`; opens no connection yet."""
    engine = create_engine(url, **engine_options(url))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing; `_sqlite_begin` does
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("regsearch_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


class Database:
    """Transactions on one engine, repeated when the connection breaks."""

    def __init__(self, url: URL, *, patience_seconds: float = 60.0, sleep: Callable[[float], None] = time.sleep) -> None:
        self.url = url
        self.engine = make_engine(url)
        self._patience = patience_seconds
        self._sleep = sleep

    @property
    def is_sqlite(self) -> bool:
        """Whether the embedded database is in use."""
        return self.engine.dialect.name == "sqlite"

    @property
    def now(self) -> ColumnElement[float]:
        """The database's clock in SQL, seconds since 1970: the only clock that decides on leases."""
        if self.is_sqlite:
            return literal_column("((julianday('now') - 2440587.5) * 86400.0)")
        return literal_column("extract(epoch from clock_timestamp())::double precision")

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that only reads."""
        return self._patiently(work, reading=True)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction and commit it.

        It is run again after a lost connection, so it must come to the same end if its first run was committed after all.

        Raises:
            DatabaseUnavailable: The database did not come back within the patience.
        """
        return self._patiently(work, reading=False)

    def _patiently(self, work: Callable[[Connection], T], *, reading: bool) -> T:
        give_up = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                with self.engine.connect() as connection:
                    connection.execution_options(regsearch_reading=reading)
                    with connection.begin():
                        return work(connection)
            except DBAPIError as error:
                if not _passes(error):
                    raise
                if time.monotonic() + pause > give_up:
                    raise DatabaseUnavailable(f"the database does not answer: {error.orig}") from error
            self._sleep(pause)
            pause = min(2.0, pause * 2)

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _passes(error: DBAPIError) -> bool:
    """Whether an error is of the kind that goes away: a lost connection, a deadlock, a lock not had in time, a race."""
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        # 08: connection, 40: rollback (deadlock), 57P: shutdown and start-up, 23505: two submits took one name.
        return str(state).startswith(("08", "40", "57P")) or state == "23505"
    if isinstance(error, IntegrityError):
        return False
    message = str(error.orig).lower()
    return any(word in message for word in ("locked", "connection", "server closed", "consuming input failed"))

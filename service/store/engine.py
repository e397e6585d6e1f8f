"""The connection to SQLite or PostgreSQL: pragmas, transactions, the database's clock, retries after lost connections.

Thread-safe. SQLite runs in WAL mode with `BEGIN IMMEDIATE` for every writing transaction, so that a read-then-write can't
fail halfway; PostgreSQL locks the study's row instead (see `trials`). Does not depend on studies and trials.
"""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Dialect,
    Engine,
    Executable,
    Float,
    Row,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.elements import ColumnElement

from service.errors import DatabaseUnavailable, InvalidInput
from service.settings import DIRECT, Connections
from service.store import tables as t
from service.store.place import FileGone, Place, connect_to, file_of

T = TypeVar("T")

BUSY_SECONDS = 30.0
"""How long an SQLite writer waits for its turn."""

LOCK_SECONDS = 10.0
"""How long PostgreSQL waits for a lock before the transaction is retried."""

IDLE_SECONDS = 10.0
"""After this time PostgreSQL ends a session that is idle in a transaction: a frozen process must not keep its locks."""

_TIMEOUTS = {"lock_timeout": LOCK_SECONDS, "idle_in_transaction_session_timeout": IDLE_SECONDS}

_REMEMBERED_SECONDS = 3600.0
_FORGET_SECONDS, _FORGOTTEN = 60.0, 10_000
"""How often a process deletes older ones, and how many at most."""
_REQUEST_SECONDS = 86_400.0
"""How long the return value of a write is kept, in case the write is repeated."""

_KEEPALIVE = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


def normalize(url: str) -> URL:
    """The URL with the driver that is a dependency: psycopg 3 for PostgreSQL.

    Raises:
        DatabaseUnavailable: The URL names neither SQLite nor PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # whose messages may have a part of the password
        raise DatabaseUnavailable(
            "REGSEARCH_DB_URL is not a database URL, such as sqlite:///file.db or postgresql://user@host/name; in it, "
            "letters such as @ and / of a password must be encoded (%40, %2F), in REGSEARCH_DB_PASSWORD they need not"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise DatabaseUnavailable(f"the database {backend!r} is not supported; use sqlite or postgresql")
    return parsed


def engine_options(url: URL, connections: Connections = DIRECT) -> dict[str, Any]:
    """Options of `create_engine` for both our engine and Optuna's."""
    if url.get_backend_name() == "sqlite":
        path = file_of(url)
        if path is not None:
            return {"creator": partial(connect_to, path, timeout=BUSY_SECONDS)}
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    chosen: dict[str, int | None] = {name: value for name, value in _KEEPALIVE.items() if name not in url.query}
    if connections.pooler:
        chosen["prepare_threshold"] = None  # a prepared statement would be one of another connection
    sizes = {"pool_size": connections.kept, "max_overflow": connections.kept}
    return {"pool_pre_ping": True, **sizes, "connect_args": chosen}


def make_engine(url: URL, connections: Connections = DIRECT) -> Engine:
    """An engine for `Database`; opens no connection yet."""
    # No ping before a transaction: `Database` repeats a transaction whose connection turns out to be dead.
    engine = create_engine(url, **engine_options(url, connections) | {"pool_pre_ping": False})
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    elif connections.pooler:
        event.listen(engine, "begin", _postgresql_begin)
    else:
        event.listen(engine, "connect", _postgresql_connect)
    return engine


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # `_sqlite_begin` begins transactions, not the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _postgresql_connect(connection: Any, _record: Any) -> None:
    before, connection.autocommit = connection.autocommit, True  # outside a transaction, whose rollback would undo it
    for name, seconds in _TIMEOUTS.items():
        connection.execute(f"SET {name} = {int(1000 * seconds)}")
    connection.autocommit = before


def _postgresql_begin(connection: Connection) -> None:
    local = ", ".join(f"set_config('{name}', '{int(1000 * seconds)}', true)" for name, seconds in _TIMEOUTS.items())
    connection.exec_driver_sql(f"SELECT {local}")


@cache
def clock(dialect: str) -> ColumnElement[float]:
    """The clock of a database in SQL, by its dialect's name, in seconds since 1970: the only clock that decides anything."""
    if dialect == "sqlite":
        return literal_column("((julianday('now') - 2440587.5) * 86400.0)")
    return literal_column("extract(epoch from clock_timestamp())::double precision")


def unhurried(dialect: Dialect) -> Sequence[ColumnElement[bool]]:
    """Conditions, always true, with which a transaction need not be on disk when it is committed.

    For heartbeats, of which a crash of the server may lose the last: PostgreSQL waits for no disk then. As a part of the
    statement this costs no message of its own, and is undone with the transaction.
    """
    return () if dialect.name == "sqlite" else [func.set_config("synchronous_commit", "off", True) == "off"]


def upsert(connection: Connection, table: Any) -> Any:
    """An INSERT that supports ON CONFLICT, in the dialect of a connection."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


@cache
def _remember(dialect: str) -> Executable:
    """Write a ``key`` that was not there, with ``more`` seconds to be remembered; returns it."""
    values = {"key": bindparam("key"), "at": clock(dialect) + bindparam("more", type_=Float), "answer": "null"}
    made = sqlite.insert(t.writes) if dialect == "sqlite" else postgresql.insert(t.writes)
    return made.values(values).on_conflict_do_nothing().returning(t.writes.c.key)


_KEEP = update(t.writes).where(t.writes.c.key == bindparam("mine")).values(answer=bindparam("answer"))


def _sqlite_begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("regsearch_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@dataclass(frozen=True)
class Once:
    """What makes a write that of one request: at most 32 characters, and a digest of what was ``given`` with it."""

    key: str
    given: str = ""


class Database:
    """Transactions on one engine, repeated after a lost connection.

    Args:
        url: The database, as `normalize` returns it.
        connections: To PostgreSQL.
        patience_seconds: How long a transaction is repeated before `DatabaseUnavailable` is raised.
        sleep: Waits for a number of seconds between two attempts.
    """

    def __init__(
        self,
        url: URL,
        connections: Connections = DIRECT,
        *,
        patience_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self.connections = connections
        self.engine = make_engine(url, connections)
        # Of PostgreSQL every statement has its own snapshot anyway: a transaction would cost two messages more.
        plain = self.is_sqlite or connections.pooler
        self._single = self.engine if plain else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._patience = patience_seconds
        self._sleep = sleep
        self._forgot = -math.inf
        self._turns = threading.Lock() if self.is_sqlite else None
        path = file_of(url)
        self._place = None if path is None else Place(path)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is embedded."""
        return self.engine.dialect.name == "sqlite"

    @property
    def now(self) -> ColumnElement[float]:
        """The database's clock in SQL, in seconds since 1970."""
        return clock(self.engine.dialect.name)

    def read(self, work: Callable[[Connection], T], *, patience_seconds: float | None = None) -> T:
        """Run ``work``, which only reads, and return its result; on SQLite all of it sees the database at one moment.

        Raises:
            DatabaseUnavailable: The database did not respond within ``patience_seconds``.
        """
        return self._patiently(work, reading=True, patience_seconds=patience_seconds)

    def write(self, work: Callable[[Connection], T], *, patience_seconds: float | None = None) -> T:
        """Run ``work`` in a transaction, commit it and return its result.

        After a lost connection it runs again, possibly although its first run was committed. It must therefore be
        idempotent; otherwise use `write_once`.

        Raises:
            DatabaseUnavailable: As in `read`.
        """
        return self._patiently(work, reading=False, patience_seconds=patience_seconds)

    def alone(
        self, statement: Executable, values: Mapping[str, Any] | None = None, *, reading: bool = True
    ) -> Sequence[Row[Any]]:
        """The rows of one statement that is a transaction of its own, which costs PostgreSQL one message instead of three.

        With a pooler it has three, as the limits of a transaction are set in it.

        It may run twice, as what `write` is given.

        Raises:
            DatabaseUnavailable: As in `read`.
        """

        def work(connection: Connection) -> Sequence[Row[Any]]:
            result = connection.execute(statement, values or {})
            return result.all() if result.returns_rows else []

        return self._patiently(work, reading=reading, alone=True)

    def write_once(self, work: Callable[[Connection], T], request: Once | None = None) -> T:
        """As `write`, for work that must not be committed twice; its return value must survive JSON.

        The transaction also writes a unique key. A repeat that finds the key (after waiting for the first run if that is
        still in progress) returns what the first run returned. With a ``request`` the key is that of its sender, so that
        requests sent twice are repeats, too, for a day.

        Raises:
            DatabaseUnavailable: As in `read`.
            InvalidInput: The request's key was that of another request.
        """
        once = request or Once(uuid.uuid4().hex)
        more = 0.0 if request is None else _REQUEST_SECONDS - _REMEMBERED_SECONDS

        def run(connection: Connection) -> T:
            self._forget(connection)
            mine = {"key": once.key, "more": more}
            if connection.execute(_remember(connection.dialect.name), mine).first() is None:
                text = connection.execute(select(t.writes.c.answer).where(t.writes.c.key == once.key)).scalar_one()
                given, answer = json.loads(text)
                if given != once.given:
                    message = "was sent with another request before"
                    raise InvalidInput.one("Idempotency-Key", message, allowed="a new key for every request")
                done: T = answer
                return done
            result = work(connection)
            connection.execute(_KEEP, {"mine": once.key, "answer": json.dumps([once.given, result])})
            return result

        return self.write(run)

    def _forget(self, connection: Connection) -> None:
        """Now and then delete what is remembered of writes for too long, without waiting for others that do."""
        if time.monotonic() < self._forgot + _FORGET_SECONDS:
            return
        self._forgot = time.monotonic()
        old = select(t.writes.c.key).where(t.writes.c.at < self.now - _REMEMBERED_SECONDS).limit(_FORGOTTEN)
        connection.execute(delete(t.writes).where(t.writes.c.key.in_(old.with_for_update(skip_locked=True))))

    def _patiently(
        self,
        work: Callable[[Connection], T],
        *,
        reading: bool,
        patience_seconds: float | None = None,
        alone: bool = False,
    ) -> T:
        give_up = time.monotonic() + (self._patience if patience_seconds is None else patience_seconds)
        pause = 0.05
        while True:
            try:
                if self._place is not None and self._place.changed():
                    self.engine.dispose()  # its connections still have the file that was there before
                engine = self._single if reading or alone else self.engine
                with self._turn(give_up, reading=reading), engine.connect() as connection:
                    connection.execution_options(regsearch_reading=reading)
                    with connection.begin():
                        return work(connection)
            except (DBAPIError, PoolTimeout, FileGone) as error:
                if isinstance(error, DBAPIError) and not _transient(error):
                    raise
                if time.monotonic() + pause > give_up:
                    raise DatabaseUnavailable(f"the database does not respond: {_cause(error)}") from error
            self._sleep(pause)
            pause = min(2.0, pause * 2)

    @contextmanager
    def _turn(self, give_up: float, *, reading: bool) -> Iterator[None]:
        """A time in which no other thread writes to SQLite, which has one writer.

        Those that it lets wait look again from time to time, whoever came first: with many threads some wait for seconds.

        Raises:
            DatabaseUnavailable: The others were not ready in time.
        """
        if reading or self._turns is None:
            yield
            return
        if not self._turns.acquire(timeout=max(0.0, give_up - time.monotonic())):
            raise DatabaseUnavailable("the database does not respond: earlier writes wait for it")
        try:
            yield
        finally:
            self._turns.release()

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


_TRANSIENT_STATES = ("08", "40", "57P", "53100", "53300", "55P03", "25P03")
"""Prefixes of SQLSTATEs: connection, rollback (deadlock), shutdown, full disk, too many clients, lock and idle timeouts."""

_TRANSIENT_WORDS = (
    "no database file",
    "locked",
    "connection",
    "server closed",
    "consuming input failed",
    "timeout",
    "disk is full",
)
"""Parts of messages without SQLSTATE after which a retry may help."""

_PERMANENT = ("authentication failed", "does not exist", "no password supplied", "translate host name", "resolve host")
"""Parts of messages without SQLSTATE after which a retry does not help: the URL is wrong."""


def _transient(error: DBAPIError) -> bool:
    """Whether a retry may succeed: after a lost connection, a deadlock or a lock timeout, or once the disk has room."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return error.connection_invalidated or str(state).startswith(_TRANSIENT_STATES)
    message = str(error.orig).lower()
    if any(words in message for words in _PERMANENT):
        return False
    return error.connection_invalidated or any(word in message for word in _TRANSIENT_WORDS)


def _cause(error: DBAPIError | PoolTimeout | FileGone) -> object:
    return error.orig if isinstance(error, DBAPIError) else error

"""The operator's databases, whose rows may become data sets: connections that can only read.

The database itself sees to that: PostgreSQL by a read-only transaction, in which the query is that of a cursor, which can
be one SELECT only; SQLite by a file that is opened for reading, and an authorizer. No message has a URL, and thereby no
password. References: PostgreSQL's SET TRANSACTION and DECLARE; SQLite's `sqlite3_set_authorizer`.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, CursorResult, Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from service.errors import DatabaseUnavailable, InvalidInput
from service.store.engine import normalize
from service.store.place import file_of

FIELD = "query"
_SELECTS = re.compile(r"(?>\s|\(|--[^\n]*\n|/\*.*?\*/)*+(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)
_READS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_NOT_IN_SQLITE = ("load_extension", "fts3_tokenizer")
_CANCELED, _READ_ONLY = "57014", "25006"
"""SQLSTATEs of PostgreSQL."""


def check_database(name: str, url: str) -> URL:
    """The URL of a database that the operator names, with its driver.

    Raises:
        DatabaseUnavailable: It is none of a kind that can be read; the message has the name only.
    """
    try:
        parsed = normalize(url)
        if parsed.get_backend_name() == "sqlite" and file_of(parsed) is None:
            raise ValueError
    except (DatabaseUnavailable, ValueError):
        kinds = "postgresql://user:password@host/name or sqlite:////directory/file.db"
        raise DatabaseUnavailable(f"REGSEARCH_DATABASES.{name}: must be a URL such as {kinds}") from None
    return parsed


@contextmanager
def rows_of(url: URL, query: str, seconds: float) -> Iterator[CursorResult[Any]]:
    """The rows of a query, as they come.

    Args:
        url: Of the database; see `check_database`.
        query: One SELECT.
        seconds: After which the database ends it.

    Raises:
        InvalidInput: It is not one SELECT, or the database refuses it; also while rows are read.
    """
    query = query.strip().rstrip(";").rstrip()
    if not _SELECTS.match(query):
        allowed = "SELECT …, WITH … SELECT … or VALUES …"
        raise InvalidInput.one(FIELD, "must be one SELECT", value=query[:200], allowed=allowed)
    engine = _engine(url)
    try:
        with _connected(engine) as connection:
            _GUARDS[url.get_backend_name()](connection, seconds)
            options = {"stream_results": True, "no_parameters": True}
            with closing(connection.exec_driver_sql(query, execution_options=options)) as result:
                yield result
    except DBAPIError as error:
        raise InvalidInput.one(FIELD, _told(error, url, seconds), value=query[:200]) from None
    finally:
        engine.dispose()


def _engine(url: URL) -> Engine:
    path = file_of(url)
    if path is None:
        try:
            return create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10})
        except ImportError:
            needed = "pip install 'regsearch[postgres]' where the service runs"
            raise InvalidInput.one("database", f"needs a package that is not installed: {needed}") from None
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    return create_engine(url, poolclass=NullPool, creator=partial(sqlite3.connect, uri, uri=True, timeout=10))


def _connected(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except SQLAlchemyError:
        raise InvalidInput.one("database", "can't be reached, or refuses the service") from None


def _guard_postgresql(connection: Connection, seconds: float) -> None:
    connection.execution_options(postgresql_readonly=True)
    limit = int(1000 * seconds)
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.exec_driver_sql(f"SET LOCAL {name} = {limit}")
    connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")


def _guard_sqlite(connection: Connection, seconds: float) -> None:
    driver: Any = connection.connection.driver_connection
    end = time.monotonic() + seconds

    def judged(action: int, _: str | None, name: str | None, *__: str | None) -> int:
        allowed = action in _READS and (action != sqlite3.SQLITE_FUNCTION or name not in _NOT_IN_SQLITE)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    driver.set_progress_handler(lambda: int(time.monotonic() > end), 100_000)
    driver.set_authorizer(judged)


_GUARDS: Mapping[str, Callable[[Connection, float], None]] = {"postgresql": _guard_postgresql, "sqlite": _guard_sqlite}
"""What makes a connection one that only reads, by the kind of the database."""


def _told(error: DBAPIError, url: URL, seconds: float) -> str:
    """What the database says of the query."""
    state = getattr(error.orig, "sqlstate", None)
    text = str(getattr(getattr(error.orig, "diag", None), "message_primary", None) or error.orig).strip()
    text = (text or type(error.orig).__name__).splitlines()[0]
    if state == _CANCELED or text == "interrupted":
        return f"was stopped after {seconds:g} s"
    if state == _READ_ONLY or text.startswith("not authorized") or "prohibited" in text:
        return f"may only read: {text}"
    return f"is refused by the database: {text.replace(url.password, '…') if url.password else text}"

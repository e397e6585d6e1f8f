"""Moving an embedded database to PostgreSQL: every row of Optuna's tables and of ours, or nothing.

The SQLite file is locked for writing from the first row to the last (others read it, and wait to write), all rows arrive in
one transaction of PostgreSQL, and are read back and compared before it is committed. Then triggers refuse whatever is still
to be written to the file, so no process that does not know of the move can finish a trial that nobody will see. Their
message makes it a database that is away (see `Database`): the API answers 503, and workers wait to be stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, func, insert, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, StatementError

from service.errors import Conflict, DatabaseUnavailable, RegsearchError
from service.store import tables as t
from service.store.engine import Database, normalize
from service.store.schema import check_schema, create_schema

MOVED = "locked: this database has moved to PostgreSQL; set REGSEARCH_DB_URL and start again"
_BATCH = 5000
_OWN_VERSIONS = ("version_info", "alembic_version")
"""Optuna's tables that the schema fills by itself."""


class NotMoved(RegsearchError):
    """The target has not what the source has; nothing was committed."""


@dataclass(frozen=True)
class Moved:
    """What has arrived in a table: a number of rows, and a sum of their hashes."""

    rows: int
    digest: int


def move(source_url: str, target_url: str, tell: Callable[[str, int], None], *, close: bool = True) -> Mapping[str, Moved]:
    """Copy a database from SQLite to an empty one of PostgreSQL.

    Args:
        source_url: The embedded database, with the schema of this version.
        target_url: `postgresql://…`; its schema is made if it has none.
        tell: Called with each table and its number of rows.
        close: Whether the source takes no more writes afterwards; without it, later ones are not in the target.

    Raises:
        Conflict: The source is no SQLite file, or has been moved; the target has rows.
        DatabaseUnavailable: One of them can't be reached or has another schema.
        NotMoved: A row can't be stored there, or is another one when it is read back.
    """
    source = Database(normalize(source_url))
    try:
        target_at = normalize(target_url)
    except RegsearchError:  # whose message has the URL, with a password
        raise DatabaseUnavailable("the target is no URL as postgresql://user@host/name") from None
    if not source.is_sqlite or target_at.get_backend_name() != "postgresql":
        raise Conflict("a database is moved from SQLite to PostgreSQL; between servers use pg_dump and pg_restore")
    target = Database(target_at, patience_seconds=5.0)
    with closing(source), closing(target):
        try:
            check_schema(source)
            create_schema(target)
            return _moved(source, target, tell, close=close)
        except (DBAPIError, StatementError, _driver_error(target)) as error:
            cause = str(getattr(error, "orig", error)).strip().splitlines()[0]
            raise NotMoved(f"{shown(target_at)} does not take the rows: {cause}; nothing was committed") from None


def _driver_error(database: Database) -> type[Exception]:
    """What the driver raises where it is used without SQLAlchemy."""
    driver: Any = database.engine.dialect.dbapi
    error: type[Exception] = driver.Error
    return error


def shown(url: URL) -> str:
    """A URL without its password."""
    return url.render_as_string(hide_password=True)


def _moved(source: Database, target: Database, tell: Callable[[str, int], None], *, close: bool) -> Mapping[str, Moved]:
    done: dict[str, Moved] = {}
    with source.engine.connect() as reading, reading.begin():  # which locks the file for writing
        if reading.execute(text("SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'rs_moved_%'")).first():
            raise Conflict("this database has been moved already")
        with target.engine.begin() as writing:
            writing.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            _check_empty(writing)
            for table in _tables():
                done[table.name] = _copied(reading, writing, table)
                tell(table.name, done[table.name].rows)
            for table in _tables():
                if _sum(_rows(writing, table)) != done[table.name]:
                    raise NotMoved(f"{table.name} is not the same when it is read back; nothing was committed")
                _set_sequence(reading, writing, table)
        if close:
            _close(reading)
    return done


def _tables() -> list[Table]:
    """All tables with content, each after those that it refers to."""
    of_optuna: MetaData = t.o_studies.metadata
    found = [*of_optuna.sorted_tables, *t.metadata.sorted_tables]
    return [table for table in found if table.name not in _OWN_VERSIONS]


def _check_empty(writing: Connection) -> None:
    names = ", ".join(f'"{table.name}"' for table in _tables())
    writing.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    full = [table.name for table in _tables() if writing.execute(select(table).limit(1)).first() is not None]
    if full:
        raise Conflict(f"the target is not empty: there are rows in {', '.join(full)}; make a new database for it")


def _rows(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    """The rows of a table, in any order and bounded memory."""
    large = any(isinstance(column.type, LargeBinary) for column in table.columns)
    options = {"yield_per": 1 if large else _BATCH}
    with connection.execute(select(table), execution_options=options) as rows:
        yield from rows


def _copied(reading: Connection, writing: Connection, table: Table) -> Moved:
    """Copy a table; returns what was sent."""
    total = _Sum()
    rows = total.passing(_rows(reading, table))
    if any(isinstance(column.type, LargeBinary) for column in table.columns):
        names = [column.name for column in table.columns]  # as text, these would be twice as long
        for row in rows:
            writing.execute(insert(table).values(dict(zip(names, row, strict=True))))
        return total.moved
    processors = [column.type.dialect_impl(writing.dialect).bind_processor(writing.dialect) for column in table.columns]
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    driver: Any = writing.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({columns}) FROM STDIN') as copy:
        for row in rows:
            copy.write_row([p(value) if p else value for p, value in zip(processors, row, strict=True)])
    return total.moved


class _Sum:
    """Counts rows, and adds up their hashes, so that their order does not matter."""

    def __init__(self) -> None:
        self._rows = 0
        self._digest = 0

    def passing(self, rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
        """The same rows."""
        for row in rows:
            plain = tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
            digest = hashlib.blake2b(repr(plain).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            self._rows += 1
            self._digest = (self._digest + int.from_bytes(digest)) % (1 << 128)
            yield plain

    @property
    def moved(self) -> Moved:
        """Those that have passed."""
        return Moved(self._rows, self._digest)


def _sum(rows: Iterable[Sequence[Any]]) -> Moved:
    total = _Sum()
    for _ in total.passing(rows):
        pass
    return total.moved


def _set_sequence(reading: Connection, writing: Connection, table: Table) -> None:
    """Let the next id be larger than any that SQLite has given, also to a row that is deleted."""
    key: Column[Any] = next(iter(table.primary_key.columns))
    sequence = writing.execute(select(func.pg_get_serial_sequence(table.name, key.name))).scalar()
    if sequence is None:
        return
    last = writing.execute(select(func.max(key))).scalar() or 0
    if inspect(reading).has_table("sqlite_sequence"):
        given = reading.execute(text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table.name}).scalar()
        last = max(last, given or 0)
    writing.execute(select(func.setval(sequence, max(last, 1), last > 0)))


def _close(connection: Connection) -> None:
    """Refuse all that is to be written to the source from now on."""
    for table in _tables():
        for change in ("INSERT", "UPDATE", "DELETE"):
            name = f"rs_moved_{change.lower()}_{table.name}"
            refusal = f"BEFORE {change} ON {table.name} BEGIN SELECT RAISE(ABORT, '{MOVED}'); END"
            connection.execute(text(f"CREATE TRIGGER {name} {refusal}"))

"""Many rows in one statement: executemany on SQLite, one JSON parameter on PostgreSQL, where every row costs a message.

Records are mappings with identical keys: column names of the table. The text of a statement does not depend on the number
of rows; it is built and compiled once for each table and set of keys.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Executable, Table, bindparam, column, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.selectable import FromClause

Records = Sequence[Mapping[str, Any]]

_ROWS = "all_rows"
"""Name of the single parameter on PostgreSQL."""


def insert_many(connection: Connection, table: Table, rows: Records) -> None:
    """Insert rows."""
    _execute(connection, _insert, table, rows)


def upsert_many(connection: Connection, table: Table, rows: Records, keys: Sequence[str]) -> None:
    """Insert rows, or overwrite those with the same ``keys`` (columns with a unique index)."""
    _execute(connection, _upsert, table, rows, tuple(keys))


def update_many(connection: Connection, table: Table, rows: Records, key: str) -> None:
    """Update the rows whose column ``key`` matches with the other values."""
    if connection.dialect.name == "sqlite":  # bound names of an UPDATE must differ from the column names
        rows = [{f"to_{name}": value for name, value in row.items()} for row in rows]
    _execute(connection, _update, table, rows, key)


def _execute(connection: Connection, build: Any, table: Table, rows: Records, *how: Any) -> None:
    if not rows:
        return
    lite = connection.dialect.name == "sqlite"
    statement: Executable = build(table, tuple(rows[0]), *how, lite=lite)
    plain = [{name: _as_json(value) for name, value in row.items()} for row in rows] if not lite else None
    connection.execute(statement, rows if lite else {_ROWS: plain})


@lru_cache
def _insert(table: Table, names: tuple[str, ...], *, lite: bool) -> Executable:
    return insert(table) if lite else insert(table).from_select(names, select(_recordset(table, names)))


@lru_cache
def _upsert(table: Table, names: tuple[str, ...], keys: tuple[str, ...], *, lite: bool) -> Executable:
    dialect = sqlite if lite else postgresql
    added: Any = dialect.insert(table)
    if not lite:
        added = added.from_select(names, select(_recordset(table, names)))
    changed = {name: added.excluded[name] for name in names if name not in keys}
    return added.on_conflict_do_update(index_elements=keys, set_=changed)  # type: ignore[no-any-return]


@lru_cache
def _update(table: Table, names: tuple[str, ...], key: str, *, lite: bool) -> Executable:
    if lite:
        own: dict[str, Any] = {name.removeprefix("to_"): bindparam(name) for name in names}
        found = table.c[key] == own.pop(key)
        return update(table).where(found).values(own)
    source = _recordset(table, names)
    taken = {name: source.c[name] for name in names if name != key}
    return update(table).where(table.c[key] == source.c[key]).values(taken)


def _recordset(table: Table, names: Sequence[str]) -> FromClause:
    """The rows as a table expression of PostgreSQL, with the types of the target columns."""
    columns: list[Any] = [column(name, table.c[name].type) for name in names]
    rows = bindparam(_ROWS, type_=postgresql.JSON)
    return func.json_to_recordset(rows).table_valued(*columns).render_derived(with_types=True)


def _as_json(value: Any) -> Any:
    """Enums become their names, as in Optuna's columns, times ISO 8601, and numbers that JSON lacks strings."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value

"""How a table's columns are read: as inferred, or as `data.types` says. Submit and workers ask the same functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from service.datasets.forms import COMPACT, PLAIN, TEXT, Form
from service.datasets.tables import Column
from service.errors import InvalidInput

ColumnType = Literal["number", "decimal_point", "decimal_comma", "category", "date", "month_first", "day_first", "text"]
_TIMES = ("date", "month_first", "day_first")
_COMPACT_RANGE = (10_000_101.0, 99_991_231.0)


def read_as(column: Column, word: ColumnType) -> Column:
    """The column, described as ``word`` asks.

    Raises:
        InvalidInput: Its values are no times, or don't have the form asked for; on ``data.types``.
    """
    if word == "category":
        return replace(column, kind="categorical", forms={})
    if word == "text":
        return replace(column, kind="text", forms={"text": TEXT}, whole=False)
    native = column.kind == "numeric" and not column.forms
    if word in _TIMES:
        return replace(column, kind="date", forms={"date": _time(column, word, native=native)}, whole=False)
    if native:
        return column
    form = column.forms.get(word) or column.forms.get("number")
    if form is None and word == "number":
        form = PLAIN
    if form is None or form["kind"] != "number":
        raise _unlike(column, word, "numbers in that form")
    return replace(column, kind="numeric", forms={"number": form})


def _time(column: Column, word: str, *, native: bool) -> Form:
    if native:
        low, high = _COMPACT_RANGE
        if column.whole and column.low is not None and low <= column.low and (column.high or 0.0) <= high:
            return COMPACT
        raise _unlike(column, word, "times, or whole numbers such as 20240503")
    form = column.forms.get(word) or column.forms.get("date")
    if form is None or form["kind"] != "date":
        raise _unlike(column, word, "times in one form")
    return form


def _unlike(column: Column, word: str, allowed: str) -> InvalidInput:
    found = f"values such as {column.example!r}" if column.example is not None else "its numbers"
    ways = " or ".join(column.forms) or "category or text"
    message = f"can't read the column {column.name!r} so: {found} are not {allowed}"
    return InvalidInput.one(f"data.types.{column.name}", message, value=word, allowed=ways)


def read_by(columns: Iterable[Column], types: Mapping[str, ColumnType]) -> tuple[Column, ...]:
    """All columns, those in ``types`` as it says.

    Raises:
        InvalidInput: See `read_as`.
    """
    return tuple(read_as(column, types[column.name]) if column.name in types else column for column in columns)

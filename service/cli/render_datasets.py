"""Data sets as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_COLUMNS, _LETTERS = 5, 40
"""Shown of a data set in a list, and of where it is from."""


def datasets(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Data sets with where they are from, and their first columns."""
    table = Table("id", "name", "from", "created", "rows", "columns")
    for dataset in found:
        columns = dataset["columns"]
        shown = [f"{column['name']} ({column['kind']})" for column in columns[:_COLUMNS]]
        more = [f"and {len(columns) - _COLUMNS} more"] if len(columns) > _COLUMNS else []
        made, rows = _moment(dataset["created_at"]), str(dataset["rows"])
        table.add_row(dataset["id"], dataset["name"], _clipped(_source(dataset)), made, rows, ", ".join([*shown, *more]))
    return table


def dataset(found: Mapping[str, Any]) -> RenderableType:
    """One data set: where it is from, and its columns."""
    about = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in (
        ("data set", f"{found['id']}  {found['name']}"),
        ("from", _source(found)),
        ("created", _moment(found["created_at"])),
        ("size", f"{found['rows']} rows, {found['size']} bytes as {found['format']}"),
        ("SHA-256", found["sha256"] or "–"),
        ("of", ", ".join(found["owners"]) or "–"),
    ):
        about.add_row(name, Text(text))
    columns = Table("column", "read as", "distinct", "missing", "notes")
    for column in found["columns"]:
        read_as = f"{column['kind']}: {column['why']}"
        cells = (column["name"], read_as, str(column["distinct"]), str(column["missing"]), "\n".join(column["notes"]))
        columns.add_row(*map(Text, cells))
    return Group(about, columns)


def received(found: Mapping[str, Any]) -> str:
    """A data set that was given, and whether there were others of its name."""
    told = f"data set {found['id']}: {found['rows']} rows, {len(found['columns'])} columns"
    if found["unchanged"]:
        return f"{told}; unchanged since {_moment(found['created_at'])}"
    others = ", ".join(each["id"] for each in found["others"][:_COLUMNS])
    return f"{told}; earlier ones named {found['name']!r}: {others}" if others else told


def _source(found: Mapping[str, Any]) -> str:
    source = found["source"]
    if source["database"]:
        return f"{source['database']}: {source['query']}"
    return str(source["address"] or source["file"] or "built in")


def _moment(text: str | None) -> str:
    """A time without fractions of its seconds."""
    return "–" if text is None else f"{text[:10]} {text[11:16]}"


def _clipped(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LETTERS else f"{line[: _LETTERS - 1]}…"

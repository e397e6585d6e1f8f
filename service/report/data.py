"""How the study read its data, as it was told at submit: rows, columns, and what may mislead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.report.content import Block, Source, Table, Text

_MOST_COLUMNS = 40


def data_sheet(source: Source) -> Iterator[Block]:
    """Nothing for studies of earlier versions, which have no sheet."""
    told = source.study.advice
    if told is None or not told.get("data"):
        return
    sheet = told["data"]
    yield Text(_rows(sheet))
    columns = sheet["columns"]
    noted = [column for column in columns if column["notes"]]
    rest = [column for column in columns if not column["notes"]]
    shown = [*noted, *rest][:_MOST_COLUMNS]
    names = {column["name"] for column in shown}
    rows = [_row(column) for column in columns if column["name"] in names]
    yield Table(("column", "use", "read as", "distinct", "missing"), rows)
    if len(columns) > len(shown):
        yield Text(f"{len(columns) - len(shown)} further columns are not listed; the study's data sheet has all of them.")
    for text in [*sheet["notes"], *(note for column in noted for note in column["notes"])]:
        yield Text(text)


def _rows(sheet: Mapping[str, Any]) -> str:
    left = "".join(f"; {count:,} are left out: {reason}" for reason, count in sheet["dropped"].items())
    return f"{sheet['used']:,} of {sheet['rows']:,} rows are used{left}."


def _row(column: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        column["name"],
        column["use"],
        f"{column['kind']}: {column['why']}",
        f"{column['distinct']:,}",
        f"{column['missing']:,}",
    )

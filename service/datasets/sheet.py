"""The data sheet: sentences on what a table holds that may not be meant, or may mislead a study."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from service.datasets.tables import NEAR, Column, Pair, TableInfo, number_of

Topic = Literal[
    "header", "id", "constant", "reading", "ambiguous", "text", "blanks", "rare", "large", "empty", "copy", "rows", "target"
]

_EXACT_INTEGERS = 2.0**53
_EQUAL_SHARE = 0.01
_MANY_MISSING = 0.5
_FEW_PER_CLASS = 5


@dataclass(frozen=True)
class Note:
    """A sentence on one column, or on the table where ``column`` is None. ``warns``: a study should be told."""

    topic: Topic
    column: str | None
    text: str
    warns: bool = True


def notes_on(table: TableInfo, targets: Sequence[str] = ()) -> list[Note]:
    """All that can be said without knowing what the targets are; without their near copies, where they are known."""
    columns = table.columns
    notes = [*_header(columns), *_rows(table)]
    for column in columns:
        for rule in _RULES:
            notes += rule(column, table.rows)
    others = (pair for pair in table.sheet.pairs if not {pair.first, pair.second} & set(targets))
    return [*notes, *(note for pair in others for note in _copy(pair))]


def notes_on_target(table: TableInfo, target: Column, *, classes: bool, others: Sequence[str] = ()) -> list[Note]:
    """What can be said of the columns as inputs for a target; the ``others`` are targets too."""
    notes = []
    if target.missing:
        text = f"{target.missing} of {table.rows} rows have no value in the target {target.name!r} and are left out."
        notes.append(Note("target", target.name, text))
    for pair in table.sheet.pairs:
        if target.name in (pair.first, pair.second) and not {pair.first, pair.second} <= {*others}:
            other = pair.second if pair.first == target.name else pair.first
            text = (
                f"The column {other!r} nearly tells the target {target.name!r} ({pair.how}): will it be known when "
                "predictions are made? data.drop leaves it out."
            )
            notes.append(Note("copy", other, text))
    rare = {text: count for text, count in (target.levels or {}).items() if count < _FEW_PER_CLASS}
    if classes and rare:
        some = ", ".join(f"{text!r} ({count})" for text, count in list(rare.items())[-5:])
        few = f"{len(rare)} of {target.distinct} classes have fewer than {_FEW_PER_CLASS} rows"
        text = f"{few}, such as {some}: some part will have too few of them."
        notes.append(Note("rare", target.name, text))
    elif classes and target.single:
        notes.append(Note("rare", target.name, f"{target.single} of {target.distinct} classes have only one row."))
    return notes


def _header(columns: Sequence[Column]) -> Iterator[Note]:
    numbers = [column.name for column in columns if math.isfinite(number_of(column.name))]
    counted = sorted(numbers) == sorted(map(str, range(len(numbers))))  # as pandas names the columns of an array
    if 2 * len(numbers) > len(columns) and not counted:
        first = f"{len(numbers)} of {len(columns)} columns have numbers for names, such as {numbers[0]!r}"
        text = f"{first}: the first line is read as names; if it is a row, put a line with names before it."
        yield Note("header", None, text)


def _rows(table: TableInfo) -> Iterator[Note]:
    equal = table.sheet.equal_rows
    if equal > _EQUAL_SHARE * table.rows:
        share = equal / table.rows
        yield Note("rows", None, f"{equal} of {table.rows} rows ({share:.0%}) repeat an earlier row.", warns=False)


def _reading(column: Column, rows: int) -> Iterator[Note]:
    for text in column.doubts():
        yield Note("ambiguous", column.name, text)
    if column.form is not None and column.kind != "text":
        into = "numbers" if column.kind == "numeric" else "times: days, and the time of year, week and day"
        text = f"The column {column.name!r} is text such as {column.example!r}, read as {into}."
        yield Note("reading", column.name, text, warns=False)
    if column.kind == "text":
        text = (
            f"The column {column.name!r} holds sentences, such as {column.example!r}: read as counts of hashed words. "
            "data.drop leaves it out, and data.types can say category."
        )
        yield Note("text", column.name, text)


def _id(column: Column, rows: int) -> Iterator[Note]:
    if column.like_id(rows):
        text = (
            f"The column {column.name!r} has another value in each row, like an id or a row's number: it tells nothing of "
            "new rows, and may tell how these were collected. data.drop leaves it out."
        )
        yield Note("id", column.name, text)


def _constant(column: Column, rows: int) -> Iterator[Note]:
    if column.missing == rows:
        yield Note("empty", column.name, f"The column {column.name!r} has no values.")
    elif column.distinct == 1:
        yield Note("constant", column.name, f"The column {column.name!r} has one value only.", warns=False)
    elif column.missing > _MANY_MISSING * rows:
        text = f"The column {column.name!r} is missing in {column.missing / rows:.0%} of the rows."
        yield Note("empty", column.name, text, warns=False)


def _blanks(column: Column, rows: int) -> Iterator[Note]:
    if column.blanks:
        some = ", ".join(column.blanks)
        text = f"The column {column.name!r} has values that differ only in blanks or in upper and lower case: {some}."
        yield Note("blanks", column.name, text)


def _large(column: Column, rows: int) -> Iterator[Note]:
    top = max(abs(column.low or 0.0), abs(column.high or 0.0))
    if column.whole and top >= _EXACT_INTEGERS:
        text = f"The column {column.name!r} has whole numbers beyond 2^53, which lose their last digits."
        yield Note("large", column.name, text)


_RULES: Sequence[Callable[[Column, int], Iterator[Note]]] = (_reading, _id, _constant, _blanks, _large)


def _copy(pair: Pair) -> Iterator[Note]:
    if pair.strength >= NEAR:
        text = f"The columns {pair.first!r} and {pair.second!r} tell nearly the same ({pair.how})."
        yield Note("copy", pair.second, text, warns=False)

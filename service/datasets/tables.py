"""Descriptions of tables, sufficient to validate a study when it is submitted without reading the data.

Independent of files: `files` and `arrays` compute descriptions from files, `builtin` has static ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from service.errors import InvalidInput

FORMATS = ("csv", "parquet", "npz")
MAX_UNPACKED_BYTES = 4 * 2**30
"""Largest size of a file's content when unpacked, which may be a thousand times its size on disk."""

_MAX_CLASSES_OF_NUMBERS = 20
_ROWS_PER_CLASS = 20

Kind = Literal["numeric", "categorical"]


@dataclass(frozen=True)
class Column:
    """One column: its kind, and the numbers of missing and of distinct values.

    ``distinct`` is exact up to 8,192 values, and an estimate (within about two percent) beyond; 0 for `x` of an NPZ file.
    """

    name: str
    kind: Kind
    missing: int
    distinct: int
    whole: bool
    """Whether all values are integers."""
    words: Sequence[str] = ()
    """Of a categorical column in which all but a few distinct values are numbers: those few."""
    example: str | None = None
    """Of a categorical column whose values contain digits but are no numbers (1,234; 41 yrs; 5/3/2024): one of them."""

    def doubts(self) -> list[str]:
        """Sentences on a column of text that may be meant as numbers."""
        read = f"The column {self.name!r} is read as {self.distinct} categories"
        if self.words:
            words = ", ".join(map(repr, self.words))
            return [f"{read}, because of the words {words} among its numbers; data.missing can declare them missing."]
        if self.example is not None:
            return [f"{read}; its values look like numbers or times in a form that is not read, such as {self.example!r}."]
        return []


@dataclass(frozen=True)
class TableInfo:
    """The content of a file. ``shape`` is that of one example; NPZ files have the columns `x` and `y`."""

    rows: int
    columns: tuple[Column, ...]
    shape: tuple[int, ...]

    def column(self, name: str) -> Column | None:
        """The column with that name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)


def infer_task(target: Column, rows: int) -> Literal["classification", "regression"]:
    """Classification for text and for a few distinct integers that occur often; regression otherwise.

    "A few" is at most 20, with at least 20 rows per value on average; two distinct integers are always classes.
    """
    if target.kind == "categorical":
        return "classification"
    few = target.whole and target.distinct <= min(_MAX_CLASSES_OF_NUMBERS, max(2, rows // _ROWS_PER_CLASS))
    return "classification" if few else "regression"


def refuse(message: str, *, value: object = None, allowed: object = None) -> NoReturn:
    """Refuse a file.

    Raises:
        InvalidInput: Always, on the field ``file``.
    """
    raise InvalidInput.one("file", message, value=value, allowed=allowed)


def doubts(columns: Sequence[Column]) -> list[str]:
    """Sentences on what was read in a way that may not be meant: the header, and columns of text."""
    numbers = [column.name for column in columns if math.isfinite(number_of(column.name))]
    counted = sorted(numbers) == sorted(map(str, range(len(numbers))))  # as pandas names the columns of an array
    told = [text for column in columns for text in column.doubts()]
    if 2 * len(numbers) <= len(columns) or counted:
        return told
    first = f"{len(numbers)} of {len(columns)} columns have numbers for names, such as {numbers[0]!r}"
    return [f"{first}: the first line is read as names; if it is a row, put a line with names before it.", *told]


def number_of(text: str) -> float:
    """The number that a text is, or NaN."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan

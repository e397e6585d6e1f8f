"""Descriptions of tables, sufficient to validate a study when it is submitted without reading the data.

Independent of files: `files` and `arrays` compute descriptions from files, `builtin` has static ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from service.datasets.forms import TEXT, Form
from service.errors import InvalidInput

FORMATS = ("csv", "parquet", "feather", "xlsx", "npz", "zip")
OF_ARRAYS = ("npz", "zip")
"""Formats without columns, which have the target `y` themselves."""
ENDINGS = {"tsv": "csv", "arrow": "feather"}
"""Other endings of files in these formats."""
MAX_UNPACKED_BYTES = 4 * 2**30
"""Largest size of a file's content when unpacked, which may be a thousand times its size on disk."""
MAX_STREAMED_BYTES = 64 * 2**30
"""The same of Parquet files, which are never read as a whole if they are large."""
READ_BY_ROWS, READ_BY_ROWS_BYTES = ("parquet", "npz", "zip"), 64 * 2**20
"""Files that are not in a worker's memory as numbers, and the size from which on."""

PARTS = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}
"""The words of a column that divides the rows: into training, validation and test."""

NEAR = 0.999
"""Strength from which one column is a near copy of another."""

_LEAST_ROWS, _ALMOST_ALL = 20, 0.99
_NAMED_ID = re.compile(r"(?i:(^|[_\s.-])(id|uuid|guid|key|index|nr|no|number|serial)$|^unnamed: \d+$)|[a-z]I[Dd]$")
MAX_ROWS, MAX_COLUMNS = 20_000_000, 20_000
MAX_TARGETS = 1000
MAX_CELL = 100_000
"""Letters of a text in a cell."""

_MAX_CLASSES_OF_NUMBERS = 20
_ROWS_PER_CLASS = 20

Kind = Literal["numeric", "categorical", "date", "text"]


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
    """Of a column of text: one of its values."""
    digits: bool = False
    """Whether nearly all values of a categorical column contain digits (41 yrs; 5/3/2024)."""
    forms: Mapping[str, Form] = field(default_factory=dict)
    """Forms that all texts have, by the word of `data.types` that asks for them; several where none is certain."""
    levels: Mapping[str, int] | None = None
    """The number of rows of each value, where there are few values."""
    single: int = 0
    """Number of values with one row, where ``distinct`` is exact."""
    low: float | None = None
    high: float | None = None
    """Of numbers."""
    blanks: Sequence[str] = ()
    """Values that differ from others only in blanks around them or in upper and lower case, a few of them."""

    @property
    def form(self) -> Form | None:
        """The form in which the column is read unless `data.types` says otherwise."""
        word = {"numeric": "number", "date": "date"}.get(self.kind)
        return TEXT if self.kind == "text" else self.forms.get(word) if word else None

    def like_id(self, rows: int) -> bool:
        """Whether it seems to be an id: another value in each row, words, or whole numbers that count or are named so."""
        present = rows - self.missing
        if present < _LEAST_ROWS or self.distinct < _ALMOST_ALL * present:
            return False
        counted = self.low is not None and self.high is not None and self.high - self.low == present - 1
        return (self.whole and (counted or bool(_NAMED_ID.search(self.name)))) or (
            self.kind == "categorical" and not self.forms
        )

    @property
    def why(self) -> str:
        """What led to the kind."""
        match self.kind:
            case "numeric":
                return f"numbers in a form of their own, such as {self.example!r}" if self.form else "numbers"
            case "date":
                return f"times, such as {self.example!r}"
            case "text":
                return "sentences, different in most rows"
            case _:
                return "words"

    def doubts(self) -> list[str]:
        """Sentences on a column of text that may be meant as numbers."""
        read = f"The column {self.name!r} is read as {self.distinct} categories"
        if self.words:
            words = ", ".join(map(repr, self.words))
            return [f"{read}, because of the words {words} among its numbers; data.missing can declare them missing."]
        if len(self.forms) > 1:
            ways = " or ".join(f"{word!r}" for word in self.forms)
            return [f"{read}: values such as {self.example!r} can be meant in several ways; data.types can say {ways}."]
        if self.digits:
            return [f"{read}; its values look like numbers or times in a form that is not read, such as {self.example!r}."]
        return []


@dataclass(frozen=True)
class Pair:
    """Two columns that tell nearly the same: ``how`` is a sentence's end; ``strength`` is between 0 and 1."""

    first: str
    second: str
    how: str
    strength: float


@dataclass(frozen=True)
class Sheet:
    """What is known of a table as a whole."""

    equal_rows: int = 0
    """Rows that repeat an earlier one, target included."""
    pairs: tuple[Pair, ...] = ()
    """Near copies; of columns with a value of its own in each row also weaker ones. From a sample of the rows."""


@dataclass(frozen=True)
class TableInfo:
    """The content of a file. ``shape`` is that of one example; NPZ files have the columns `x` and `y`, or `y0`, `y1` and
    so on.
    """

    rows: int
    columns: tuple[Column, ...]
    shape: tuple[int, ...]
    sheet: Sheet = field(default_factory=Sheet, kw_only=True)

    def column(self, name: str) -> Column | None:
        """The column with that name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)


def table_from(document: Mapping[str, Any]) -> TableInfo:
    """A table from its JSON; a table that an earlier version has described has no sheet."""
    columns = tuple(Column(**column) for column in document["columns"])
    sheet = document.get("sheet") or {}
    pairs = tuple(Pair(**pair) for pair in sheet.get("pairs", ()))
    return TableInfo(document["rows"], columns, tuple(document["shape"]), sheet=Sheet(sheet.get("equal_rows", 0), pairs))


def names_of_targets(count: int) -> tuple[str, ...]:
    """Of the columns of an array `y` (rows, count)."""
    return ("y",) if count == 1 else tuple(f"y{place}" for place in range(count))


def infer_task(target: Column, rows: int) -> Literal["classification", "regression"]:
    """Classification for text and for a few distinct integers that occur often; regression otherwise.

    "A few" is at most 20, with at least 20 rows per value on average; two distinct integers are always classes.
    """
    if target.kind != "numeric":
        return "classification"
    few = target.whole and target.distinct <= min(_MAX_CLASSES_OF_NUMBERS, max(2, rows // _ROWS_PER_CLASS))
    return "classification" if few else "regression"


def refuse(message: str, *, value: object = None, allowed: object = None) -> NoReturn:
    """Refuse a file.

    Raises:
        InvalidInput: Always, on the field ``file``.
    """
    raise InvalidInput.one("file", message, value=value, allowed=allowed)


def refuse_many(rows: int, columns: int) -> None:
    """Refuse a table with more rows or columns than any study could use.

    Raises:
        InvalidInput: On the field ``file``.
    """
    for count, most, what in ((rows, MAX_ROWS, "rows"), (columns, MAX_COLUMNS, "columns")):
        if count > most:
            refuse(f"has {count} {what}", value=count, allowed=f"at most {most}")


def number_of(text: str) -> float:
    """The number that a text is, or NaN."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan

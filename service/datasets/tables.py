"""What a table holds, in a few plain values: enough to validate a study at submit without reading a row.

Knows no file: `files` and `arrays` make these from what is on disk, `builtin` from static facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

from service.errors import InvalidInput

FORMATS = ("csv", "parquet", "npz")
MAX_UNPACKED_BYTES = 4 * 2**30
"""Largest size of a file's content once unpacked, which may be a thousand times its size on disk."""

_MAX_CLASSES_OF_NUMBERS = 20
_ROWS_PER_CLASS = 20

Kind = Literal["numeric", "categorical"]


@dataclass(frozen=True)
class Column:
    """One column: its kind, and enough to judge whether it is a target, a category or noise.

    ``distinct`` is exact up to 8,192 values and an estimate (within about two percent) beyond; 0 for an NPZ file's `x`.
    """

    name: str
    kind: Kind
    missing: int
    distinct: int
    whole: bool
    """All values are whole numbers."""


@dataclass(frozen=True)
class TableInfo:
    """What a file holds. ``shape`` is that of one example; NPZ files have the columns `x` and `y`."""

    rows: int
    columns: tuple[Column, ...]
    shape: tuple[int, ...]

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)


def infer_task(target: Column, rows: int) -> Literal["classification", "regression"]:
    """Classification for words, and for few distinct whole numbers that come back often; regression otherwise.

    "Few" is at most 20, and at least 20 rows per value; two whole numbers are always classes.
    """
    if target.kind == "categorical":
        return "classification"
    few = target.whole and target.distinct <= min(_MAX_CLASSES_OF_NUMBERS, max(2, rows // _ROWS_PER_CLASS))
    return "classification" if few else "regression"


def refuse(message: str, *, value: object = None, allowed: object = None) -> NoReturn:
    """Say what is wrong with a file.

    Raises:
        InvalidInput: Always, on the field ``file``.
    """
    raise InvalidInput.one("file", message, value=value, allowed=allowed)

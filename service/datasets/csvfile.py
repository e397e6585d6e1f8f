"""Checks the form of a CSV file line by line before pandas reads it, because pandas guesses where it should refuse.

(It fills short lines with missing values, and if lines have one field too many it shifts all columns without a warning.)
Files compressed by gzip are read directly. Needs only the standard library.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO, cast

from service.datasets.tables import MAX_CELL, MAX_ROWS, MAX_UNPACKED_BYTES, refuse, refuse_many

_GZIP = b"\x1f\x8b"
_ENCODING = "utf-8-sig"  # a byte order mark, which some spreadsheets write, is not part of the first name
_ALWAYS_UNPACKED, _MOST_PACKED = 64 << 20, 100
_LONGEST_LINE = 16 << 20
_SEPARATORS = (",", ";", "\t", "|")


csv.field_size_limit(MAX_CELL)


def compression(path: Path) -> Literal["gzip"] | None:
    """The compression of a file, according to its first bytes rather than its name."""
    with path.open("rb") as file:
        return "gzip" if file.read(2) == _GZIP else None


def separator(path: Path) -> str:
    """What separates the fields: a comma if the first line has one outside of quotes, else a semicolon, tab or bar."""
    with _opened(path) as file:
        first = next((line for line in _limited(file, path) if line.strip()), "")
    return next((sign for sign in _SEPARATORS if len(next(csv.reader([first], delimiter=sign))) > 1), ",")


def header(path: Path) -> list[str]:
    """The column names, in order, of a file in which each line has one field per name.

    Raises:
        InvalidInput: The file is not text, is empty, has no rows, or has lines of different lengths.
    """
    try:
        return _checked(path)
    except UnicodeDecodeError:
        refuse("cannot be read as csv: it is not UTF-8 text", allowed="UTF-8")
    except (csv.Error, OSError, EOFError, zlib.error) as error:
        refuse(f"cannot be read as csv: {error}")


def _checked(path: Path) -> list[str]:
    sign = separator(path)
    with _opened(path) as file:
        lines = csv.reader(_limited(file, path), skipinitialspace=True, delimiter=sign)
        names = next((line for line in lines if line), None)
        if names is None:
            refuse("cannot be read as csv: it is empty")
        refuse_many(0, len(names))
        rows = 0
        for line in lines:
            if len(line) == len(names):
                rows += 1
                if rows > MAX_ROWS:
                    refuse_many(rows, 0)
            elif len(line) > 1 or (line and line[0].strip()):  # pandas skips empty lines as well
                refuse(
                    f"cannot be read as csv: line {lines.line_num} has {len(line)} fields, the header has {len(names)}",
                    value=line[:20],
                    allowed=f"{len(names)} fields in each line",
                )
    _refuse_unusable(names, rows)
    return names


def _refuse_unusable(names: list[str], rows: int) -> None:
    twice = sorted(name for name, times in Counter(names).items() if name and times > 1)
    if twice:
        refuse("has several columns with the same name", value=twice)
    if len(names) < 2:
        refuse("needs at least two columns: a target and a feature", value=names)
    if rows == 0:
        refuse("has no rows")


def _opened(path: Path) -> TextIO:
    if compression(path):
        return cast(TextIO, gzip.open(path, "rt", encoding=_ENCODING, newline=""))
    return path.open(encoding=_ENCODING, newline="")


def _limited(file: TextIO, path: Path) -> Iterator[str]:
    """The lines, up to a total size that no valid file should reach."""
    most = MAX_UNPACKED_BYTES
    if compression(path):  # tables are packed to a fifth, repetitive ones to a fiftieth
        most = min(most, max(_ALWAYS_UNPACKED, _MOST_PACKED * path.stat().st_size))
    size = 0
    while line := file.readline(_LONGEST_LINE):
        size += len(line)
        if size > most:
            refuse(f"unpacks to more than {most} bytes", allowed=f"at most {most}")
        if len(line) == _LONGEST_LINE:
            refuse(f"has a line of more than {_LONGEST_LINE} letters", allowed=f"at most {_LONGEST_LINE}")
        yield line

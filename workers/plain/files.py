"""Files of rows, as a loaded model reads them: CSV, also compressed by gzip, and NPZ. NumPy only, no pandas."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from .images import read_images
from .preprocessing import CannotPredict

_SEPARATORS = (",", ";", "\t", "|")
_NAMES = {"x": "x", "y": "y", "len": "lengths", "lengths": "lengths"}


def read_rows(path: str | Path, image: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A file of rows by column or array: NPZ by its name, else CSV; images where training has read such (``image``).

    Raises:
        CannotPredict: As `read_npz` and `read_csv`, or an image can't be read.
    """
    if str(path).endswith(".npz"):
        return read_npz(path)
    if image is None:
        return read_csv(path)
    try:
        return read_images(Path(path), image)
    except ImportError:
        raise CannotPredict("images are read by Pillow: pip install pillow") from None
    except (OSError, ValueError) as error:
        raise CannotPredict(f"{path} can't be read as images: {error}") from None


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """The array `x` of an NPZ file, and where it has them `y`, and `lengths` of series.

    Raises:
        CannotPredict: It is none, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {_NAMES[name.lower()]: arrays[name] for name in arrays.files if name.lower() in _NAMES}
    except (ValueError, OSError, EOFError) as error:
        raise CannotPredict(f"{path} can't be read as NPZ: {error}") from None


def read_csv(path: str | Path) -> dict[str, list[str | None]]:
    """A CSV file (also with semicolons, tabs or bars, and compressed by gzip) by column; None where a value is missing.

    Raises:
        CannotPredict: It is no text, has no rows, or a line has more or fewer fields than the header.
    """
    with Path(path).open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    try:
        with (
            cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
            if packed
            else Path(path).open(encoding="utf-8-sig", newline="") as file
        ):
            return _by_column(file, str(path))
    except (UnicodeDecodeError, csv.Error, EOFError) as error:
        raise CannotPredict(f"{path} can't be read as CSV: {error}") from None


def _by_column(file: TextIO, path: str) -> dict[str, list[str | None]]:
    first = next((line for line in file if line.strip()), "")
    sign = next((each for each in _SEPARATORS if len(next(csv.reader([first], delimiter=each))) > 1), ",")
    lines = csv.reader(itertools.chain([first], file), skipinitialspace=True, delimiter=sign)
    names = next((line for line in lines if line), [])
    columns: list[list[str | None]] = [[] for _ in names]
    for line in lines:
        if len(line) != len(names):
            if not line or (len(line) == 1 and not line[0].strip()):
                continue
            raise CannotPredict(f"{path}, line {lines.line_num}: {len(line)} fields, but the header has {len(names)}")
        for column, value in zip(columns, line, strict=True):
            column.append(value or None)
    if not columns or not columns[0]:
        raise CannotPredict(f"{path} has no rows")
    named = [name or f"Unnamed: {place}" for place, name in enumerate(names)]  # as pandas, which training reads files by
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise CannotPredict(f"{path} has several columns {twice!r}")
    return dict(zip(named, columns, strict=True))

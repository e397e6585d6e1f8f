"""Columns that are not read as they are: numbers in a form of their own, times, sentences. For training and prediction.

A reading is a document: ``{"kind": "number", "pattern", "thousands", "decimal"}``, where the groups of ``pattern`` are the
sign and the digits; ``{"kind": "date", "format", "clock"}`` with a format of strptime or ``iso``; ``{"kind": "text",
"outputs"}``. A number stays one column; a time becomes days since 1970 and points on the circles of year, week and day; a
sentence becomes signed counts of its words and pairs of words, by their hashes (Weinberger et al., "Feature hashing for
large scale multitask learning", ICML 2009), divided by the root of how many there are. Shapes: `r` rows.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import is_missing, mapped, number_of

Reading = Mapping[str, Any]

ISO = "iso"
_DAY_SECONDS = 86_400.0
_YEAR_DAYS, _WEEK_DAYS = 365.2425, 7.0
_MONDAY = 4.0
"""Days from 1970-01-01, a Thursday, to a Monday."""
_WORD = re.compile(r"\w+")


class Ambiguous(ValueError):
    """A column that a reading makes has the name of another."""


def derived(columns: Any, readings: Mapping[str, Reading]) -> dict[str, Any]:
    """The columns by name, those with a reading replaced by what it makes of them; others as they are.

    Raises:
        Ambiguous: See there.
    """
    made: dict[str, Any] = {}
    for name in columns:
        reading = readings.get(str(name))
        own = {str(name): columns[name]} if reading is None else MADE[reading["kind"]](str(name), columns[name], reading)
        twice = [each for each in own if each in made]
        if twice:
            raise Ambiguous(f"there are two columns {twice[0]!r}")
        made |= own
    return made


def names_of(name: str, reading: Reading) -> list[str]:
    """The columns that a reading makes of a column."""
    return [*MADE[reading["kind"]](name, [], reading)]


def _number(name: str, values: Any, reading: Reading) -> dict[str, NDArray[np.float64]]:
    return {name: _floats(values, lambda value: number_by(reading, value))}


def number_by(reading: Reading, value: Any) -> float:
    r"""A value as a number; NaN where it has neither the reading's form nor that of a plain number.

    >>> number_by({"pattern": "([+-]?)([0-9,]+)", "thousands": ",", "decimal": "."}, "74,417")
    74417.0
    """
    found = re.fullmatch(reading["pattern"], value.strip()) if isinstance(value, str) else None
    if found is None:
        return number_of(value)
    text = "".join(found.groups())
    for mark in reading["thousands"]:
        text = text.replace(mark, "")
    return number_of(text.replace(reading["decimal"], "."))


def _moments(name: str, values: Any, reading: Reading) -> dict[str, NDArray[np.float64]]:
    """Days since 1970, and sine and cosine of the time of year, of the week and, with a clock, of the day."""
    days = _floats(values, lambda value: days_by(reading, value))
    has_date = reading["format"] == ISO or "%d" in reading["format"]
    periods = {"year": _YEAR_DAYS, "week": _WEEK_DAYS} if has_date else {}
    if reading["clock"]:
        periods["day"] = 1.0
    made = {f"{name}: days": days}
    for word, period in periods.items():
        phase = 2.0 * math.pi * (days - (_MONDAY if word == "week" else 0.0)) / period
        made |= {f"{name}: {word} (sine)": np.sin(phase), f"{name}: {word} (cosine)": np.cos(phase)}
    return made


def days_by(reading: Reading, value: Any) -> float:
    """Days from the beginning of 1970 to a time, which is one of UTC unless it says otherwise; NaN where it is none.

    >>> days_by({"format": "%m/%d/%Y"}, "01/03/1970"), days_by({"format": "iso"}, "1970-01-01 12:00")
    (2.0, 0.5)
    """
    moment = _moment(reading["format"], value)
    if moment is None:
        return math.nan
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    if "%d" not in reading["format"] and reading["format"] != ISO:
        seconds %= _DAY_SECONDS  # a time of day, which strptime puts into 1900
    return seconds / _DAY_SECONDS


def _moment(form: str, value: Any) -> datetime | None:
    if is_missing(value):
        return None
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    text = (str(int(value)) if whole else str(value)).strip()
    try:
        return datetime.fromisoformat(text) if form == ISO else datetime.strptime(text, form)
    except ValueError:
        return None


def _sentence(name: str, values: Any, reading: Reading) -> dict[str, NDArray[np.float64]]:
    outputs = reading["outputs"]
    rows = mapped(values, lambda value: hashed(value, outputs))
    made = np.stack(rows) if rows else np.zeros((0, outputs))
    return {f"{name}: {place}": made[:, place] for place in range(outputs)}


def hashed(value: Any, outputs: int) -> NDArray[np.float64]:
    """(outputs,) signed counts of the words and pairs of words of a text, divided by the root of how many there are."""
    made = np.zeros(outputs)
    words = [] if is_missing(value) else _WORD.findall(str(value).lower())
    grams = [*words, *(" ".join(pair) for pair in itertools.pairwise(words))]
    for gram in grams:
        number = zlib.crc32(gram.encode())
        made[(number >> 1) % outputs] += 1.0 if number & 1 else -1.0
    return made / math.sqrt(max(1, len(grams)))


def _floats(values: Any, function: Callable[[Any], float]) -> NDArray[np.float64]:
    if getattr(getattr(values, "dtype", None), "kind", "O") == "M" and not hasattr(values, "iloc"):
        values = values.astype("datetime64[us]")  # whose list has times, where that of nanoseconds has integers
    return np.array(mapped(values, function), dtype=np.float64)


MADE: Mapping[str, Callable[[str, Any, Reading], dict[str, NDArray[np.float64]]]] = {
    "number": _number,
    "date": _moments,
    "text": _sentence,
}
"""What becomes of a column, by the kind of its reading."""


def understood(reading: Reading, value: Any) -> bool:
    """Whether a value that is not missing has the form of its column.

    Raises:
        KeyError: There is no such kind of reading.
    """
    return UNDERSTOOD[reading["kind"]](reading, value)


UNDERSTOOD: Mapping[str, Callable[[Reading, Any], bool]] = {
    "number": lambda reading, value: not math.isnan(number_by(reading, value)),
    "date": lambda reading, value: not math.isnan(days_by(reading, value)),
    "text": lambda reading, value: True,
}


def sources(readings: Mapping[str, Reading], wanted: Sequence[str]) -> dict[str, str]:
    """The column that each of the ``wanted`` ones is made of, by its name."""
    made = {each: name for name, reading in readings.items() for each in names_of(name, reading)}
    return {name: made.get(name, name) for name in wanted}

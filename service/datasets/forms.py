"""Forms of numbers and of times in columns of text, found in the texts themselves: 74,417 · 3,5 · 41 yrs · 04/21/2021.

A form is found only where every text has it and no other form would read one of them differently. It is a document of plain
values, which `workers.plain.readings` applies in training and prediction. Independent of file formats.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Form = Mapping[str, Any]
"""A number has a ``pattern`` (its groups: sign and digits), ``thousands`` and ``decimal``; a time has a ``format``."""

ISO = "iso"
"""The format of ISO 8601 times, of any precision, with or without offset."""

_LEAST_DISTINCT = 3
_SENTENCE = 4
"""Words of a text on average from which texts are sentences."""
_AFFIXED = re.compile(
    r"[+-]?(?P<before>[$€£¥]?\s?)[+-]?\d[\d.,' \u00a0\u202f]*?"
    r"(?P<after>\s?[%‰°]\S?|\s[^\W\d_]{1,12}|[a-z]{2,8}|)"
)
_SPACES = " \u00a0\u202f"
_DIGITS: Mapping[tuple[str, str], str] = {
    ("", "."): r"\d+(?:\.\d+)?",
    (",", "."): r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?",
    ("", ","): r"\d+(?:,\d+)?",
    (".", ","): r"(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)(?:,\d+)?",
    ("'", "."): r"(?:[1-9]\d{0,2}(?:'\d{3})+|\d+)(?:\.\d+)?",
    (_SPACES, "."): rf"(?:[1-9]\d{{0,2}}(?:[{_SPACES}]\d{{3}})+|\d+)(?:\.\d+)?",
    (_SPACES, ","): rf"(?:[1-9]\d{{0,2}}(?:[{_SPACES}]\d{{3}})+|\d+)(?:,\d+)?",
}
"""Digits by the marks of thousands and of decimals."""

MONTH_FIRST, DAY_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y"), ("%d/%m/%Y", "%d-%m-%Y", "%d/%m/%y")
_DATES = (
    *MONTH_FIRST,
    *DAY_FIRST,
    *("%Y/%m/%d", "%d.%m.%Y", "%d.%m.%y", "%Y.%m.%d"),
    *("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_FORMATS = (ISO, *(date + clock for date in _DATES for clock in _CLOCKS), "%H:%M", "%H:%M:%S", "%I:%M %p")


def parsed(text: str, form: str) -> datetime | None:
    """A text as a time of a format, or None."""
    try:
        return datetime.fromisoformat(text) if form == ISO else datetime.strptime(text, form)
    except ValueError:
        return None


@dataclass
class Numbers:
    """The forms of numbers that all texts so far may have."""

    before: str = ""
    after: str = ""
    alive: dict[tuple[str, str], re.Pattern[str]] = field(
        default_factory=lambda: {key: re.compile(text) for key, text in _DIGITS.items()}
    )
    differ: set[frozenset[tuple[str, str]]] = field(default_factory=set)
    """Pairs of forms that have read a text as different numbers."""
    whole: bool = True

    def add(self, text: str) -> None:
        """Keep the forms that can read this text."""
        found = _AFFIXED.fullmatch(text) if self.alive else None
        before, after = (found["before"].strip(), found["after"].strip()) if found else ("", "")
        if found is None or (before and self.before not in ("", before)) or (after and self.after not in ("", after)):
            self.alive = {}
            return
        self.before, self.after = before or self.before, after or self.after
        plain = text[found.end("before") : found.start("after")].strip().lstrip("+-")
        self.alive = {key: pattern for key, pattern in self.alive.items() if pattern.fullmatch(plain)}
        values = {key: _value(plain, *key) for key in self.alive}
        for one, other in itertools.combinations(values, 2):
            if values[one] != values[other]:
                self.differ.add(frozenset((one, other)))
        self.whole = self.whole and all(value.is_integer() for value in values.values())

    def _certain(self, keys: Collection[tuple[str, str]]) -> bool:
        return bool(keys) and not any(pair <= {*keys} for pair in self.differ)

    def decimals(self) -> set[str]:
        """The marks of decimals that are possible, where texts show that there are any."""
        return {decimal for _, decimal in self.alive} if self._certain(self.alive) and not self.whole else set()

    def form(self, decimal: str | None) -> Form | None:
        """The form, where it is certain or the mark of ``decimal`` decides."""
        keys = [key for key in self.alive if self._certain(self.alive) or key[1] == decimal]
        if not self._certain(keys):
            return None
        thousands, mark = keys[0]
        before, after = re.escape(self.before), re.escape(self.after)
        pattern = rf"([+-]?)(?:{before})?\s?([+-]?{_DIGITS[thousands, mark]})\s?(?:{after})?"
        return {"kind": "number", "pattern": pattern, "thousands": thousands, "decimal": mark}


def _value(plain: str, thousands: str, decimal: str) -> float:
    for mark in thousands:
        plain = plain.replace(mark, "")
    return float(plain.replace(decimal, "."))


@dataclass
class Times:
    """The formats of times that all texts so far may have."""

    alive: Sequence[str] = _FORMATS
    clock: bool = False
    """Whether a time of day other than midnight occurred."""

    def add(self, text: str) -> None:
        """Keep the formats that can read this text."""
        if not self.alive or not any(letter.isdigit() for letter in text):
            self.alive = ()
            return
        found = {form: moment for form in self.alive if (moment := parsed(text, form)) is not None}
        self.alive = tuple(found)
        self.clock = self.clock or any((each.hour, each.minute, each.second) != (0, 0, 0) for each in found.values())

    def forms(self) -> dict[str, Form]:
        """By the words of `data.types`; two words where day and month can't be told apart."""
        made: dict[str, Form] = {each: {"kind": "date", "format": each, "clock": self.clock} for each in self.alive}
        if len(made) < 2:
            return dict(zip(("date",), made.values(), strict=False))
        words = {"month_first": MONTH_FIRST, "day_first": DAY_FIRST}
        return {word: form for each, form in made.items() for word, dates in words.items() if each.startswith(dates)}


@dataclass
class Texts:
    """All texts of a column, to find the form that they have in common."""

    numbers: Numbers = field(default_factory=Numbers)
    times: Times = field(default_factory=Times)
    words: int = 0
    """Words of all distinct texts together."""
    distinct: int = 0
    first: str | None = None

    def add(self, texts: Iterable[str]) -> None:
        """Add the distinct texts of a chunk."""
        for text in texts:
            plain = text.strip()
            self.first = plain if self.first is None else self.first
            self.distinct += 1
            self.words += plain.count(" ") + 1
            if self.numbers.alive:
                self.numbers.add(plain)
            if self.times.alive:
                self.times.add(plain)

    def are_sentences(self) -> bool:
        """Whether texts have several words on average."""
        return self.words >= _SENTENCE * self.distinct

    def forms(self, decimal: str | None) -> dict[str, Form]:
        """The forms that are possible, by the words of `data.types`; ``decimal`` is the file's mark, where it is known."""
        found: dict[str, Form] = {}
        if self.distinct < _LEAST_DISTINCT:
            return found
        number = self.numbers.form(decimal)
        if number is not None:
            found["number"] = number
        else:
            for word, mark in (("decimal_point", "."), ("decimal_comma", ",")):
                own = self.numbers.form(mark)
                found |= {word: own} if own is not None else {}
        return found or self.times.forms()


TEXT: Form = {"kind": "text", "outputs": 64}
"""How sentences are read."""

PLAIN: Form = {"kind": "number", "pattern": r"([+-]?)(\d+(?:\.\d+)?)", "thousands": "", "decimal": "."}
"""How words are read that shall be numbers: those that are none are missing."""

COMPACT: Form = {"kind": "date", "format": "%Y%m%d", "clock": False}
"""How whole numbers are read that shall be times: 20240503."""

"""What a report consists of, before anyone decides how it looks: sections of texts, figures, tables and code.

HTML, Markdown and PDF are three renderings of one `Report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.report.axes import number
from service.report.scene import Drawing
from service.result import Interval, Reading, Result, Spread
from service.spec import GAP
from service.store.records import StudyRecord, TrialRecord


@dataclass(frozen=True)
class Source:
    """All that a report is made from. ``result`` may be of an earlier version: what it lacks is left out."""

    study: StudyRecord
    result: Result
    trials: Sequence[TrialRecord]
    test_record: Sequence[Reading] = ()

    @property
    def metric(self) -> str:
        """The metric's name for people."""
        return objective(self.study.metric)

    @property
    def minimize(self) -> bool:
        """Whether a lower value is better."""
        return self.study.direction == "minimize"


def objective(name: str) -> str:
    """An objective's name for people."""
    return "generalization gap" if name == GAP else name.replace("_", " ")


def over_seeds(spread: Spread) -> str:
    """Mean and standard deviation."""
    return f"{number(spread.mean)} ± {number(spread.std)}"


def between(interval: Interval) -> str:
    """The ends of an interval."""
    return f"{number(interval.low)} to {number(interval.high)}"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A drawing, what is to be seen in it, and its numbers as a table for those who can't see it."""

    drawing: Drawing
    caption: str
    table: Table | None = None
    wide: bool = False


@dataclass(frozen=True)
class Code:
    """Source text in a language."""

    text: str
    language: str


Block = Text | Table | Figure | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """One number that matters: its name, the number, and what qualifies it."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Report:
    """A study's answer. ``links`` are addresses by what they lead to."""

    title: str
    subtitle: str
    verdict: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    links: Mapping[str, str]

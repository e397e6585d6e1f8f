"""The content of a report, independent of its format: sections of texts, figures, tables and code.

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
    """The data of a report. ``result`` may be of an earlier version: parts that it lacks are left out."""

    study: StudyRecord
    result: Result
    trials: Sequence[TrialRecord]
    test_record: Sequence[Reading] = ()

    @property
    def metric(self) -> str:
        """The metric's display name."""
        return objective(self.study.metric)

    @property
    def minimize(self) -> bool:
        """Whether a lower value is better."""
        return self.study.direction == "minimize"


def objective(name: str) -> str:
    """An objective's display name."""
    return "generalization gap" if name == GAP else name.replace("_", " ")


def over_seeds(spread: Spread) -> str:
    """Mean ± standard deviation."""
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
    """Rows below a header; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A drawing, its caption, and its numbers as a table for readers who can't see it."""

    drawing: Drawing
    caption: str
    table: Table | None = None
    wide: bool = False


@dataclass(frozen=True)
class Code:
    """Source code in a language."""

    text: str
    language: str


Block = Text | Table | Figure | Code


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """A key figure: its name, its value, and a qualification."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Report:
    """The whole report of a study. ``links`` are addresses by label."""

    title: str
    subtitle: str
    verdict: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    links: Mapping[str, str]

"""The winning recipe: its settings in a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.report.axes import number
from service.report.content import Block, Source, Table
from service.spec import SETTINGS


def recipe(source: Source) -> Iterator[Block]:
    """The winner's settings, regularizers first."""
    winner = source.result.get("winner")
    if not winner:
        return
    on = set(winner.get("regularizers", ()))
    settings = sorted(winner["recipe"].items(), key=lambda item: item[0] not in on)
    rows = [
        (name, said(value), SETTINGS[name].doc if name in SETTINGS else "Units of the hidden layers.")
        for name, value in settings
    ]
    yield Table(("setting", "value", "what it is"), rows)


def said(value: Any) -> str:
    """A value for people."""
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value))
    return number(float(value)) if isinstance(value, float) else str(value)

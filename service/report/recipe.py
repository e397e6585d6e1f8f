"""The winning recipe: its settings in a table, and a program that trains with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.report.axes import number
from service.report.content import Block, Code, Source, Table, Text
from service.spec import SETTINGS


def recipe(source: Source) -> Iterator[Block]:
    """The winner's settings, regularizers first."""
    winner = source.result.winner
    on = set(winner.regularizers)
    settings = sorted(winner.recipe.items(), key=lambda item: item[0] not in on)
    rows = [
        (name, said(value), SETTINGS[name].doc if name in SETTINGS else "Units of the hidden layers.")
        for name, value in settings
    ]
    yield Table(("setting", "value", "what it is"), rows)
    yield from _program(source)


def _program(source: Source) -> Iterator[Block]:
    delivered = source.result.model
    if delivered is None or delivered.program is None:
        return  # a result of a version before programs were kept
    yield Text(
        "The same as a program in plain PyTorch: `train.py` of the model's archive, whose folder `plain` has network and "
        "the training loop. Its updates are those of the search, its random numbers are its own."
    )
    yield Code(delivered.program, "python")


def said(value: Any) -> str:
    """A value for people."""
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value))
    return number(float(value)) if isinstance(value, float) else str(value)

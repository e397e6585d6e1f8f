"""The winning recipe: its settings as a table, and a program that trains with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.report.axes import number
from service.report.content import Block, Code, Source, Table, Text
from service.spec import SETTINGS

_NO_SETTINGS = {
    "widths": "Units of the hidden layers.",
    "quantile": "Level of the quantile of the target that is predicted, of which the loss is the pinball loss.",
}


def recipe(source: Source) -> Iterator[Block]:
    """The winner's settings, regularizers first."""
    winner = source.result.winner
    on = set(winner.regularizers)
    settings = sorted(winner.recipe.items(), key=lambda item: item[0] not in on)
    rows = [(name, formatted(value), _about(name)) for name, value in settings]
    yield Table(("setting", "value", "description"), rows)
    yield from _program(source)


def _about(name: str) -> str:
    if name in SETTINGS:
        return SETTINGS[name].doc
    return _NO_SETTINGS.get(name, "Of the module.")


def _program(source: Source) -> Iterator[Block]:
    delivered = source.result.model
    if delivered is None or delivered.program is None:
        return  # the result of an earlier version, which kept no programs
    yield Text(
        "The same recipe as a program in plain PyTorch: `train.py` in the model's archive, whose folder `plain` contains "
        "the network and the training loop. Its updates are those of the search; its random numbers are its own."
    )
    yield Code(delivered.program, "python")


def formatted(value: Any) -> str:
    """A value of a setting for readers."""
    if isinstance(value, list | tuple):
        return ", ".join(map(formatted, value))
    return number(float(value)) if isinstance(value, float) else str(value)

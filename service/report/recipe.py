"""The winning recipe: its settings in a table, and a program that trains with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.report.axes import number
from service.report.content import Block, Code, Source, Table, Text
from service.report.snippet import NoSnippet, snippet, stand_in
from service.spec import SETTINGS, Recipe


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
    yield from _program(source, winner.recipe)


def _program(source: Source, settings: Mapping[str, Any]) -> Iterator[Block]:
    spec = source.study.spec
    if set(settings) - set(SETTINGS) - {"widths"}:
        return  # a result of another version, whose settings are not those of this one
    try:
        code = snippet(Recipe.from_json(settings), spec)
    except NoSnippet as error:
        yield Text(f"As a program: {error}.")
        return
    watched = stand_in(spec)
    instead = f" The study's early stopping watched {watched}; this one watches the loss." if watched else ""
    yield Text(
        "The same in plain PyTorch, to be pasted; its updates are those of the search, its random numbers are its own. The "
        f"preprocessing and the trained weights are in the model's archive.{instead}"
    )
    yield Code(code, "python")


def said(value: Any) -> str:
    """A value for people."""
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value))
    return number(float(value)) if isinstance(value, float) else str(value)

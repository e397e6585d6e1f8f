"""What was done, by whom, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from service.cli.render import short


def changes(page: Mapping[str, Any]) -> RenderableType:
    """What people have changed in a study."""
    table = Table("at", "owner", "what", "before", "then")
    for change in page["changes"]:
        for name, (before, then) in change["what"].items():
            cells = (change["at"][:19], change["owner"] or "–", name, short(before), short(then))
            table.add_row(*(Text(cell) for cell in cells))
    return table

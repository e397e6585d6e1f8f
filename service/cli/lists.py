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


def audit(page: Mapping[str, Any]) -> RenderableType:
    """Changes that were asked for."""
    table = Table("at", "owner", "token", "request", "about", "status")
    for entry in page["entries"]:
        request = f"{entry['method']} {entry['route']}"
        cells = (entry["at"][:19], entry["owner"] or "–", short(entry["token"]), request, entry["object"])
        table.add_row(
            *(Text(cell) for cell in cells), Text(str(entry["status"]), style="red" if entry["status"] >= 400 else "")
        )
    return table

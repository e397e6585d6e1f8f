"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str | None, typer.Option("--url", help="Address of the service; default: host and port of the settings.")]
StudyId = Annotated[int, typer.Argument(metavar="ID", help="A study's number.")]
Json = Annotated[bool, typer.Option("--json", help="The API's own answer, for programs.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API and the dashboard; 0: any free one.")]
Home = Annotated[Path | None, typer.Option(help="Directory of the database, data sets and logs.")]
DataFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, Parquet or NPZ.")]
Name = Annotated[str | None, typer.Option(help="A name for people.")]


class Format(StrEnum):
    """How a report is written."""

    HTML = "html"
    MARKDOWN = "markdown"
    PDF = "pdf"

    @property
    def ending(self) -> str:
        """The usual ending of its files."""
        return "md" if self is Format.MARKDOWN else self.value

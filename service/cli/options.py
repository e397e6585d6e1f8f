"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str | None, typer.Option("--url", help="URL of the service; default: host and port of the settings.")]
StudyId = Annotated[int, typer.Argument(metavar="ID", help="The study's id.")]
Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON response.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API and the dashboard; 0: any free port.")]
Home = Annotated[Path | None, typer.Option(help="Directory of the database, data sets and logs.")]
DataSource = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE|ADDRESS", help="A table, arrays or a ZIP of images; or such as s3://bucket/people.parquet."
    ),
]
Database = Annotated[str | None, typer.Option(help="Instead of a file: a database that the operator names …")]
Query = Annotated[str | None, typer.Option(help="… and the SELECT whose rows are the data set; @FILE reads it from a file.")]
Name = Annotated[str | None, typer.Option(help="Display name; default: the file's name.")]


class Format(StrEnum):
    """Format of a report."""

    HTML = "html"
    MARKDOWN = "markdown"
    PDF = "pdf"

    @property
    def ending(self) -> str:
        """The usual extension of its files."""
        return "md" if self is Format.MARKDOWN else self.value

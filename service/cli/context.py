"""What the commands share: consoles, the settings, the connection to a service, printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType

from service.cli import local, render
from service.cli.watch import watch as follow
from service.client.connection import HttpClient
from service.settings import Settings, load_settings

# Printed text comes from users and may contain brackets, so none of it is read as markup.
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)

resources = ExitStack()
"""Resources of the running command, closed when it ends."""


def settings_of(home: Path | None = None, port: int | None = None) -> Settings:
    """The settings, with options of a command in place of some."""
    given = {"home": home, "port": port}
    return load_settings().model_copy(update={name: value for name, value in given.items() if value is not None})


def address(url: str | None) -> str:
    """Where the service is that a command speaks to."""
    return url or local.address(load_settings())


def client_of(url: str | None) -> HttpClient:
    """A connection to it, closed when the command ends."""
    return resources.enter_context(closing(HttpClient(address(url))))


def printed(found: Any, as_table: Callable[[Any], RenderableType], as_json: bool) -> None:
    """Print a response, as a table or as it came."""
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        out.print(as_table(found))


def watched(client: HttpClient, study_id: int) -> None:
    """Follow a study, then print its result; exits with 1 where it has failed or was cancelled.

    Raises:
        typer.Exit: It has not finished.
    """
    try:
        study = follow(client, study_id, out)
    except KeyboardInterrupt:
        render.echo(out, f"Stopped watching; the study continues. Watch it again with: regsearch watch {study_id}")
        return
    if study["state"] == "finished":
        out.print(render.result(client.result(study_id)))
    else:
        out.print(render.study(study))
        raise typer.Exit(0 if study["state"] == "paused" else 1)

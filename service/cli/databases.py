"""Commands on the database itself: `backup` and `migrate-to`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from service.cli import context, render
from service.cli.context import settings_of
from service.cli.options import Home

app = typer.Typer()


@app.command()
def backup(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="A file that is not there yet.")], home: Home = None
) -> None:
    """Copy the embedded database while it is in use. Of PostgreSQL use pg_dump; data sets and models are files beside it."""
    from service.store.backup import back_up

    size = back_up(settings_of(home).database_url, to)
    render.echo(context.out, f"{to}: {size / 2**20:.1f} MiB, checked")


@app.command("migrate-to")
def migrate_to(
    url: Annotated[str, typer.Argument(metavar="URL", help="An empty database, postgresql://user:password@host/name.")],
    copy: Annotated[bool, typer.Option("--copy", help="Go on with SQLite: what is written later is not copied.")] = False,
    home: Home = None,
) -> None:
    """Move the embedded database to PostgreSQL, every row of it, compared; afterwards the file takes no more writes."""
    from service.store.migrating import move

    start = time.monotonic()

    def tell(table: str, rows: int) -> None:
        if rows:
            render.echo(context.out, f"{rows:>10} rows of {table}")

    moved = move(settings_of(home).database_url, url, tell, close=not copy)
    rows = sum(each.rows for each in moved.values())
    render.echo(context.out, f"{rows} rows are there, and the same, after {render.seconds(time.monotonic() - start)}.")
    if not copy:
        render.echo(context.out, "Stop API and workers, set REGSEARCH_DB_URL to the new database, and start them again.")

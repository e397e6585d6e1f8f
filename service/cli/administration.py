"""Commands around studies: data sets, workers, tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from service.cli import context, lists, render, render_datasets, webhooks
from service.cli.context import address, client_of, printed, settings_of
from service.cli.options import Database, DataSource, Json, Name, Query, Url

app = typer.Typer()
datasets = typer.Typer(invoke_without_command=True)
app.add_typer(datasets, name="datasets")
token = typer.Typer(no_args_is_help=True, help="Tokens of the service, where REGSEARCH_AUTH=tokens asks for them.")
app.add_typer(token, name="token")
app.add_typer(webhooks.app, name="webhook")


@app.command("workers")
def list_workers(json_: Json = False, url: Url = None) -> None:
    """List worker processes and what they are doing."""
    printed(client_of(url).get("/v1/workers"), lists.workers, json_)


@app.command("audit")
def audit_log(
    owner: Annotated[str | None, typer.Option(help="Only what this owner has changed.")] = None,
    under: Annotated[str | None, typer.Option(help="Only what was about this, such as studies/3.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    json_: Json = False,
    url: Url = None,
) -> None:
    """Show who has changed what, latest first."""
    query = {name: value for name, value in (("owner", owner), ("under", under), ("limit", limit)) if value is not None}
    printed(client_of(url).get("/v1/audit", **query), lists.audit, json_)


@app.command()
def prune(
    older_than: Annotated[str, typer.Option(help="Such as 90d, 2w or 12h, since the end of a study or the last use.")],
    what: Annotated[list[str] | None, typer.Option(help="studies, models, datasets or steps; default: all of them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; only tell what would be.")] = False,
    json_: Json = False,
    url: Url = None,
) -> None:
    """Delete what is old: ended studies, their models, unused data sets, values after single epochs."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", older_than)
    if found is None:
        raise typer.BadParameter(f"{older_than!r} is no time such as 90d, 2w or 12h", param_hint="--older-than")
    kinds = what or [*lists.PRUNED]
    if unknown := {*kinds} - {*lists.PRUNED}:
        raise typer.BadParameter(f"{min(unknown)!r} is not one of {', '.join(lists.PRUNED)}", param_hint="--what")
    days = float(found[1]) * {"h": 1 / 24, "d": 1.0, "w": 7.0}[found[2]]
    body = {**dict.fromkeys(kinds, days), "dry_run": dry_run}
    printed(client_of(url).post("/v1/prune", body), lists.pruned, json_)


@app.command("usage")
def show_usage(json_: Json = False, url: Url = None) -> None:
    """Show what owners use, and their quotas."""
    printed(client_of(url).get("/v1/usage"), lists.usage, json_)


@datasets.callback()
def list_datasets(invoked: typer.Context, json_: Json = False, url: Url = None) -> None:
    """List data sets with where they are from; `datasets show ID` describes one, `datasets add FILE` uploads one."""
    invoked.obj = url
    if invoked.invoked_subcommand is None:
        printed(client_of(url).get("/v1/datasets"), render_datasets.datasets, json_)


@datasets.command("add")
def add_dataset(
    invoked: typer.Context,
    source: DataSource = None,
    name: Name = None,
    database: Database = None,
    query: Query = None,
    url: Url = None,
) -> None:
    """Make a file, what is at an address, or the rows of a query a data set."""
    upload(source, name, database, query, url or invoked.obj)


@datasets.command("show")
def show_dataset(
    invoked: typer.Context,
    dataset_id: Annotated[str, typer.Argument(metavar="ID", help="The data set's id.")],
    json_: Json = False,
    url: Url = None,
) -> None:
    """Describe a data set: where it is from, its hash, its columns and what may mislead a study."""
    found = client_of(url or invoked.obj).get(f"/v1/datasets/{quote(dataset_id, safe='')}")
    printed(found, render_datasets.dataset, json_)


@app.command()
def upload(
    source: DataSource = None, name: Name = None, database: Database = None, query: Query = None, url: Url = None
) -> None:
    """Make a file, what is at an address, or the rows of a query a data set."""
    client = client_of(url)
    if source is not None and database is None and query is None:
        if "://" not in source and not Path(source).is_file():
            raise typer.BadParameter(f"there is no file {source!r}", param_hint="FILE|ADDRESS")
        dataset = client.upload(source, name)
    elif source is None and database is not None and query is not None:
        dataset = client.query(database, Path(query[1:]).read_text() if query.startswith("@") else query, name)
    else:
        raise typer.BadParameter("give a file, an address, or --database with --query", param_hint="FILE|ADDRESS")
    render.echo(context.out, render_datasets.received(dataset))


@token.command("create")
def create_token(
    owner: Annotated[str, typer.Option(help="Whose studies and data sets it is for.")],
    scope: Annotated[str, typer.Option(help="read, submit, worker or admin.")] = "submit",
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0.001, max=36_500, help="Days until it expires; default: never.")] = None,
) -> None:
    """Make a token, on the machine of the service; it is printed once."""
    from service.cli import tokens

    tokens.create(settings_of(), context.out, owner, scope, name, days)


@token.command("list")
def list_tokens() -> None:
    """List tokens: owner, scope, last use."""
    from service.cli import tokens

    tokens.show(settings_of(), context.out)


@token.command("revoke")
def revoke_token(token_id: Annotated[int, typer.Argument(metavar="ID", help="The token's id.")]) -> None:
    """End a token now."""
    from service.cli import tokens

    tokens.revoke(settings_of(), context.out, token_id)


@app.command()
def login(
    token: Annotated[str | None, typer.Option(help="The token; asked for where no browser signs in.")] = None,
    scope: Annotated[str | None, typer.Option(help="Of the token that a browser confirms; default: yours.")] = None,
    url: Url = None,
) -> None:
    """Sign in to a service by a browser on any machine, or keep a token, for this command line and the Python client."""
    from service.cli import login as device
    from service.cli import tokens

    place = address(url)
    if token is None:
        try:
            device.sign_in(context.out, place, scope)
        except device.NoDeviceFlow:
            token = typer.prompt("Token", hide_input=True)
    if token is not None:
        tokens.login(context.out, place, token)


@app.command()
def logout(url: Url = None) -> None:
    """Forget the token of a service, and revoke it there if a sign-in has made it."""
    from service.cli import tokens

    tokens.logout(context.out, address(url))

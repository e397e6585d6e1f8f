"""The commands and their options; the other modules of this package do the work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console, RenderableType

from service.cli import doctor, local, prediction, render, render_datasets
from service.cli.options import Database, DataSource, Format, Home, Json, Name, Port, Query, StudyId, Url
from service.cli.study_file import read_study
from service.cli.watch import watch as follow
from service.client.connection import HttpClient, Refused
from service.errors import RegsearchError
from service.settings import Settings, load_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the regularization that makes a neural network generalize.",
)
# Printed text comes from users and may contain brackets, so none of it is read as markup.
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)

_open = ExitStack()
"""Resources of the running command, closed when it ends."""

datasets = typer.Typer(invoke_without_command=True)
app.add_typer(datasets, name="datasets")
token = typer.Typer(no_args_is_help=True, help="Tokens of the service, where REGSEARCH_AUTH=tokens asks for them.")
app.add_typer(token, name="token")


def main() -> None:
    """Run the command line; every expected failure is one clear message and an exit code."""
    try:
        with _open:
            app()
    except Refused as error:
        err.print(render.refusal(error))
        sys.exit(2)
    except (RegsearchError, OSError) as error:
        err.print(str(error), style="red", highlight=False, soft_wrap=True)
        sys.exit(1)


def _settings(home: Path | None = None, port: int | None = None) -> Settings:
    given = {"home": home, "port": port}
    return load_settings().model_copy(update={name: value for name, value in given.items() if value is not None})


def _client(url: str | None) -> HttpClient:
    return _open.enter_context(closing(HttpClient(url or local.address(load_settings()))))


@app.command()
def up(
    workers: Annotated[int | None, typer.Option(min=0, help="Number of workers; default: one per device.")] = None,
    port: Port = None,
    home: Home = None,
) -> None:
    """Start the API, the dashboard and one worker per device; Ctrl-C stops all of them."""
    local.up(_settings(home, port), out, workers)


@app.command()
def serve(port: Port = None, home: Home = None) -> None:
    """Start the API and the dashboard only."""
    local.serve(_settings(home, port))


@app.command()
def worker(device: Annotated[str | None, typer.Option(help="cpu, cuda:0, …; default: the first device.")] = None) -> None:
    """Start one worker in the foreground."""
    local.work(device)


@app.command()
def warm(
    datasets: Annotated[
        list[str] | None, typer.Argument(metavar="DATASET", help="Built-in data sets; default: all.")
    ] = None,
) -> None:
    """Compile the programs of studies with all defaults now, so that the first one need not wait for them."""
    local.warm(datasets or [])


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards.")] = False,
    trials: Annotated[int, typer.Option(min=10, max=10_000, help="Trials of the study.")] = 60,
) -> None:
    """Search a real data set, from start to result, in about a minute."""
    local.demo(_settings(), out, keep=keep, trials=trials)


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A study in YAML or JSON; see the README.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show a progress bar, and then the result.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show how the data are read, and the plan.")] = False,
    url: Url = None,
) -> None:
    """Submit a study."""
    client = _client(url)
    study = client.post("/v1/studies/dry-run" if dry_run else "/v1/studies", read_study(file))
    for warning in study["warnings"]:
        err.print(f"Warning: {warning}", style="yellow", highlight=False, markup=False)
    if dry_run:
        if study["data"] is not None:
            out.print(render.data_sheet(study["data"]))
        out.print(render.plan(study["plan"]))
        return
    render.echo(out, f"study {study['id']} is {study['state']}: {client.url}{study['links']['dashboard']}")
    if watch:
        _watch(client, study["id"])


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="With {lr} or {args} where settings go.")],
    study: Annotated[
        str, typer.Option("--study", help="A study in YAML or JSON with `executor: external`, or the id of one.")
    ],
    parallel: Annotated[int, typer.Option(min=1, max=1000, help="Runs at a time.")] = 1,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds that a stopped script has to end by itself.")] = 10.0,
    url: Url = None,
) -> None:
    """Run a script for every trial of a study: `regsearch run --study study.yaml -- python train.py {args}`.

    Settings are in $REGSEARCH_PARAMS (JSON), $REGSEARCH_PARAM_LR and so on, the seed in $REGSEARCH_SEED. Values are lines
    such as `val_loss=0.31` in the output, or JSON lines in the file $REGSEARCH_RESULTS.
    """
    from service.cli.run import run_script
    from service.client import Client

    client = _open.enter_context(Client(url or local.address(load_settings())))
    running = client.study(int(study) if study.isdecimal() else read_study(Path(study)))
    render.echo(out, f"study {running.id}: {client.connection.url}{running.latest['links']['dashboard']}")
    run_script(running, command, parallel=parallel, grace=grace)
    _watch(client.connection, running.id)


@app.command("watch")
def watch_study(study_id: StudyId, url: Url = None) -> None:
    """Show a study's progress, and then its result."""
    _watch(_client(url), study_id)


@app.command("list")
def list_studies(
    state: Annotated[str | None, typer.Option(help="Only studies in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    url: Url = None,
) -> None:
    """List the latest studies."""
    query = {"limit": limit} | ({"state": state} if state else {})
    out.print(render.studies(_client(url).get("/v1/studies", **query)))


@app.command()
def show(study_id: StudyId, json_: Json = False, url: Url = None) -> None:
    """Show the state of a study."""
    _print(_client(url).get(f"/v1/studies/{study_id}"), render.study, json_)


@app.command()
def result(study_id: StudyId, json_: Json = False, url: Url = None) -> None:
    """Show the result of a finished study."""
    client = _client(url)
    if json_:
        _print(client.get(f"/v1/studies/{study_id}/result"), str, as_json=True)
    else:
        out.print(render.result(client.result(study_id)))
        render.echo(out, f"Dashboard: {client.url}/dashboard/studies/{study_id}")


@app.command()
def report(
    study_id: StudyId,
    format_: Annotated[Format, typer.Option("--format", help="html, markdown or pdf.")] = Format.HTML,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Output file; default: regsearch-ID with the extension.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    url: Url = None,
) -> None:
    """Save the report of a finished study."""
    path = out_ or Path(f"regsearch-{study_id}.{format_.ending}")
    path.write_bytes(_client(url).download(f"/v1/studies/{study_id}/report", format=format_.value))
    render.echo(out, f"report of study {study_id}: {path}")
    if open_:
        typer.launch(str(path))


@app.command()
def model(
    study_id: StudyId,
    onnx: Annotated[bool, typer.Option("--onnx", help="As one ONNX model, preprocessing included.")] = False,
    out_: Annotated[Path | None, typer.Option("--out", help="Output file; default: regsearch-ID.zip or .onnx.")] = None,
    url: Url = None,
) -> None:
    """Download the trained model of a finished study."""
    path = out_ or Path(f"regsearch-{study_id}.{'onnx' if onnx else 'zip'}")
    # A worker makes ONNX models once a study is finished, which takes seconds.
    wanted: dict[str, Any] = {"format": "onnx", "patience": 60.0} if onnx else {"format": "archive"}
    content = _client(url).download(f"/v1/studies/{study_id}/model", **wanted)
    path.write_bytes(content)
    render.echo(out, f"model of study {study_id}: {path}")


@app.command()
def predict(
    study_id: StudyId,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV with the training columns, or NPZ with x.")],
    out_: Annotated[Path | None, typer.Option("--out", help="Output file; default: standard output.")] = None,
    url: Url = None,
) -> None:
    """Predict new rows with the model of a finished study."""
    prediction.predict(_client(url), study_id, file, out_)


@app.command()
def cancel(study_id: StudyId, url: Url = None) -> None:
    """Cancel a study; its finished trials are kept."""
    _transition(url, study_id, "cancel")


@app.command()
def pause(study_id: StudyId, url: Url = None) -> None:
    """Pause a study: no more of its trials are handed out."""
    _transition(url, study_id, "pause")


@app.command()
def resume(study_id: StudyId, url: Url = None) -> None:
    """Resume a paused study."""
    _transition(url, study_id, "resume")


@app.command()
def extend(study_id: StudyId, trials: Annotated[int, typer.Option(min=1, help="Trials to add.")], url: Url = None) -> None:
    """Add trials to a study's budget."""
    _transition(url, study_id, "extend", {"trials": trials})


@app.command()
def replay(
    study_id: StudyId,
    watch: Annotated[bool, typer.Option(help="Show its progress, and compare it with the original.")] = True,
    url: Url = None,
) -> None:
    """Run a study again with the same spec, seed and data. The exit code is 1 if any trial differs."""
    client = _client(url)
    again = client.post(f"/v1/studies/{study_id}/replay", None)
    render.echo(out, f"study {again['id']} repeats study {study_id}: {client.url}{again['links']['dashboard']}")
    if watch:
        _watch(client, again["id"])
        found = client.get(f"/v1/studies/{again['id']}/comparison")
        out.print(render.comparison(found))
        raise typer.Exit(0 if found["same"] else 1)


@app.command()
def delete(study_id: StudyId, url: Url = None) -> None:
    """Delete an ended study and its trials."""
    _client(url).delete(f"/v1/studies/{study_id}")
    render.echo(out, f"study {study_id} is deleted")


@app.command("workers")
def list_workers(json_: Json = False, url: Url = None) -> None:
    """List worker processes and what they are doing."""
    _print(_client(url).get("/v1/workers"), render.workers, json_)


@datasets.callback()
def list_datasets(context: typer.Context, json_: Json = False, url: Url = None) -> None:
    """List data sets with where they are from; `datasets show ID` describes one, `datasets add FILE` uploads one."""
    context.obj = url
    if context.invoked_subcommand is None:
        _print(_client(url).get("/v1/datasets"), render_datasets.datasets, json_)


@datasets.command("add")
def add_dataset(
    context: typer.Context,
    source: DataSource = None,
    name: Name = None,
    database: Database = None,
    query: Query = None,
    url: Url = None,
) -> None:
    """Make a file, what is at an address, or the rows of a query a data set."""
    upload(source, name, database, query, url or context.obj)


@datasets.command("show")
def show_dataset(
    context: typer.Context,
    dataset_id: Annotated[str, typer.Argument(metavar="ID", help="The data set's id.")],
    json_: Json = False,
    url: Url = None,
) -> None:
    """Describe a data set: where it is from, its hash, its columns and what may mislead a study."""
    _print(_client(url or context.obj).get(f"/v1/datasets/{quote(dataset_id, safe='')}"), render_datasets.dataset, json_)


@app.command()
def upload(
    source: DataSource = None, name: Name = None, database: Database = None, query: Query = None, url: Url = None
) -> None:
    """Make a file, what is at an address, or the rows of a query a data set."""
    client = _client(url)
    if source is not None and database is None and query is None:
        if "://" not in source and not Path(source).is_file():
            raise typer.BadParameter(f"there is no file {source!r}", param_hint="FILE|ADDRESS")
        dataset = client.upload(source, name)
    elif source is None and database is not None and query is not None:
        dataset = client.query(database, Path(query[1:]).read_text() if query.startswith("@") else query, name)
    else:
        raise typer.BadParameter("give a file, an address, or --database with --query", param_hint="FILE|ADDRESS")
    render.echo(out, render_datasets.received(dataset))


@token.command("create")
def create_token(
    owner: Annotated[str, typer.Option(help="Whose studies and data sets it is for.")],
    scope: Annotated[str, typer.Option(help="read, submit, worker or admin.")] = "submit",
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0.001, max=36_500, help="Days until it expires; default: never.")] = None,
) -> None:
    """Make a token, on the machine of the service; it is printed once."""
    from service.cli import tokens

    tokens.create(_settings(), out, owner, scope, name, days)


@token.command("list")
def list_tokens() -> None:
    """List tokens: owner, scope, last use."""
    from service.cli import tokens

    tokens.show(_settings(), out)


@token.command("revoke")
def revoke_token(token_id: Annotated[int, typer.Argument(metavar="ID", help="The token's id.")]) -> None:
    """End a token now."""
    from service.cli import tokens

    tokens.revoke(_settings(), out, token_id)


@app.command()
def login(
    token: Annotated[str, typer.Option(prompt=True, hide_input=True, help="The token; asked for if omitted.")],
    url: Url = None,
) -> None:
    """Keep the token of a service, for this command line and the Python client."""
    from service.cli import tokens

    tokens.login(out, url or local.address(load_settings()), token)


@app.command()
def logout(url: Url = None) -> None:
    """Forget the token of a service."""
    from service.client.credentials import keep_token

    keep_token(url or local.address(load_settings()), None)


@app.command("doctor")
def examine(port: Port = None, home: Home = None) -> None:
    """Check database, schema, devices, disk and port."""
    if not doctor.examine(_settings(home, port), out):
        raise typer.Exit(1)


def _watch(client: HttpClient, study_id: int) -> None:
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


def _transition(url: str | None, study_id: int, name: str, body: Any = None) -> None:
    out.print(render.study(_client(url).post(f"/v1/studies/{study_id}/{name}", body)))


def _print(found: Any, as_table: Callable[[Any], RenderableType], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        out.print(as_table(found))

"""Commands that submit studies, follow them and fetch what they found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli import context, lists, prediction, render
from service.cli.context import address, client_of, printed, watched
from service.cli.options import Format, Json, StudyId, Url
from service.cli.study_file import read_study

app = typer.Typer()


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A study in YAML or JSON; see the README.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show a progress bar, and then the result.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show how the data are read, and the plan.")] = False,
    url: Url = None,
) -> None:
    """Submit a study."""
    client = client_of(url)
    study = client.post("/v1/studies/dry-run" if dry_run else "/v1/studies", read_study(file))
    for warning in study["warnings"]:
        context.err.print(f"Warning: {warning}", style="yellow", highlight=False, markup=False)
    if dry_run:
        if study["data"] is not None:
            context.out.print(render.data_sheet(study["data"]))
        context.out.print(render.plan(study["plan"]))
        return
    render.echo(context.out, f"study {study['id']} is {study['state']}: {client.url}{study['links']['dashboard']}")
    if watch:
        watched(client, study["id"])


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

    client = context.resources.enter_context(Client(address(url)))
    running = client.study(int(study) if study.isdecimal() else read_study(Path(study)))
    render.echo(context.out, f"study {running.id}: {client.connection.url}{running.latest['links']['dashboard']}")
    run_script(running, command, parallel=parallel, grace=grace)
    watched(client.connection, running.id)


@app.command("watch")
def watch_study(study_id: StudyId, url: Url = None) -> None:
    """Show a study's progress, and then its result."""
    watched(client_of(url), study_id)


@app.command("list")
def list_studies(
    state: Annotated[str | None, typer.Option(help="Only studies in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only studies with this in their name.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only studies with this tag; may be given several times.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only studies of this metric.")] = None,
    sort: Annotated[str, typer.Option(help="newest, oldest, name, priority, best (of a metric) or finished.")] = "newest",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    url: Url = None,
) -> None:
    """List the latest studies."""
    given = {"limit": limit, "state": state, "name": name, "tag": tag, "metric": metric, "sort": sort}
    query = {key: value for key, value in given.items() if value}
    context.out.print(render.studies(client_of(url).get("/v1/studies", **query)))


@app.command()
def show(study_id: StudyId, json_: Json = False, url: Url = None) -> None:
    """Show the state of a study."""
    printed(client_of(url).get(f"/v1/studies/{study_id}"), render.study, json_)


@app.command()
def compare(
    study_ids: Annotated[list[int], typer.Argument(metavar="ID…", help="The studies' ids.")],
    json_: Json = False,
    url: Url = None,
) -> None:
    """Show several studies beside each other: scores, and where their recipes differ."""
    client, ids = client_of(url), ",".join(map(str, study_ids))
    printed(client.get("/v1/compare", ids=ids), lists.comparison, json_)
    if not json_:
        render.echo(context.out, f"Curves: {client.url}/compare?ids={ids}")


@app.command()
def result(study_id: StudyId, json_: Json = False, url: Url = None) -> None:
    """Show the result of a finished study."""
    client = client_of(url)
    if json_:
        printed(client.get(f"/v1/studies/{study_id}/result"), str, as_json=True)
    else:
        context.out.print(render.result(client.result(study_id)))
        render.echo(context.out, f"Dashboard: {client.url}/dashboard/studies/{study_id}")


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
    path.write_bytes(client_of(url).download(f"/v1/studies/{study_id}/report", format=format_.value))
    render.echo(context.out, f"report of study {study_id}: {path}")
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
    content = client_of(url).download(f"/v1/studies/{study_id}/model", **wanted)
    path.write_bytes(content)
    render.echo(context.out, f"model of study {study_id}: {path}")


@app.command()
def archive(
    study_id: StudyId,
    data: Annotated[bool, typer.Option("--data", help="Also the data set, if it was uploaded.")] = False,
    out_: Annotated[Path | None, typer.Option("--out", help="Output file; default: regsearch-study-ID.zip.")] = None,
    url: Url = None,
) -> None:
    """Save an ended study as one file, from which `restore` makes it again, also on another service."""
    path = out_ or Path(f"regsearch-study-{study_id}.zip")
    client_of(url).save(f"/v1/studies/{study_id}/archive", path, data=data)
    render.echo(context.out, f"archive of study {study_id}: {path}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The file that `archive` has written.")],
    url: Url = None,
) -> None:
    """Restore a study from its archive, as your own."""
    client = client_of(url)
    study = client.restore(file)
    for each in study["lacks"]:
        context.err.print(f"Warning: {each}", style="yellow", highlight=False, markup=False)
    told = "is there already" if study["unchanged"] else f"is restored, {study['state']}"
    render.echo(context.out, f"study {study['id']} {told}: {client.url}{study['links']['dashboard']}")


@app.command()
def predict(
    study_id: StudyId,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV with the training columns, or NPZ with x.")],
    out_: Annotated[Path | None, typer.Option("--out", help="Output file; default: standard output.")] = None,
    module: Annotated[
        str | None, typer.Option("--module", help="package.module:Class, to be imported: a network of your own.")
    ] = None,
    url: Url = None,
) -> None:
    """Predict new rows with the model of a finished study."""
    prediction.predict(client_of(url), study_id, file, out_, module)

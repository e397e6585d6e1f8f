"""Commands that change studies: pause, resume, cancel, extend, priority and budget, single trials, replay, delete."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from service.cli import context, lists, render
from service.cli.context import client_of, printed, watched
from service.cli.options import Json, StudyId, Url

app = typer.Typer()


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


@app.command("set")
def change(
    study_id: StudyId,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="Higher ones get workers first.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Time from the study's begin; 0: no limit.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of a trial, before anything has begun.")] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="With which finalists are trained.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="All of its tags, one by one; an empty one for none.")] = None,
    notes: Annotated[str | None, typer.Option(help="What to keep of it, in Markdown.")] = None,
    url: Url = None,
) -> None:
    """Change a study's priority, budget, tags or notes; a finished one that is given more goes on."""
    given = {"trials": trials, "seconds": seconds, "epochs": epochs, "seeds": seeds}
    budget: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if seconds == 0:
        budget["seconds"] = None
    tags = None if tag is None else [each for each in tag if each]
    parts = {"priority": priority, "tags": tags, "notes": notes, "budget": budget or None}
    body = {name: value for name, value in parts.items() if value is not None}
    if not body:
        raise typer.BadParameter("name what is to change, such as --priority 5")
    context.out.print(render.study(client_of(url).patch(f"/v1/studies/{study_id}", body)))


@app.command()
def changes(study_id: StudyId, json_: Json = False, url: Url = None) -> None:
    """Show what people have changed in a study, latest first."""
    printed(client_of(url).get(f"/v1/studies/{study_id}/changes", limit=500), lists.changes, json_)


@app.command()
def share(
    thing: Annotated[str, typer.Argument(metavar="ID", help="Of a study; or of a data set, as datasets/ID.")],
    with_: Annotated[list[str] | None, typer.Option("--with", help="An owner, who may read it then.")] = None,
    everybody: Annotated[bool, typer.Option(help="All owners may read it.")] = False,
    nobody: Annotated[bool, typer.Option(help="Only its owner may see it.")] = False,
    url: Url = None,
) -> None:
    """Let other owners read a study or a data set, and nobody else; without options, show who may."""
    kind, _, key = thing.rpartition("/")
    path = f"/v1/{kind or 'studies'}/{quote(key, safe='')}/sharing"
    client = client_of(url)
    if with_ or everybody or nobody:
        found = client.put(path, {"owners": [] if nobody else with_ or [], "everybody": everybody and not nobody})
    else:
        found = client.get(path)
    whom = "everybody" if found["everybody"] else ", ".join(found["owners"]) or "nobody"
    render.echo(context.out, f"{thing} is shared with {whom}")


@app.command()
def stop(
    study_id: StudyId,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="The trial's number.")],
    url: Url = None,
) -> None:
    """Stop one trial of a study: it ends with its best value so far, and the search goes on."""
    stopped = client_of(url).post(f"/v1/studies/{study_id}/trials/{trial}/stop")
    told = "ends after its epoch" if stopped["stopping"] else f"is {stopped['state']}"
    render.echo(context.out, f"trial {trial} of study {study_id} {told}")


@app.command()
def replay(
    study_id: StudyId,
    watch: Annotated[bool, typer.Option(help="Show its progress, and compare it with the original.")] = True,
    url: Url = None,
) -> None:
    """Run a study again with the same spec, seed and data. The exit code is 1 if any trial differs."""
    client = client_of(url)
    again = client.post(f"/v1/studies/{study_id}/replay", None)
    render.echo(context.out, f"study {again['id']} repeats study {study_id}: {client.url}{again['links']['dashboard']}")
    if watch:
        watched(client, again["id"])
        found = client.get(f"/v1/studies/{again['id']}/comparison")
        context.out.print(render.comparison(found))
        raise typer.Exit(0 if found["same"] else 1)


@app.command()
def delete(study_id: StudyId, url: Url = None) -> None:
    """Delete an ended study and its trials."""
    client_of(url).delete(f"/v1/studies/{study_id}")
    render.echo(context.out, f"study {study_id} is deleted")


def _transition(url: str | None, study_id: int, name: str, body: Any = None) -> None:
    context.out.print(render.study(client_of(url).post(f"/v1/studies/{study_id}/{name}", body)))

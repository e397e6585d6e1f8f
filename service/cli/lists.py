"""Tables for the terminal of what concerns more than one study: workers, usage, comparisons, and who has changed what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.cli.render import number, short


def workers(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Worker processes."""
    table = Table("worker", "device", "state", "doing", "lanes", "training")
    for worker in found:
        stats = worker["stats"]
        training = stats.get("shares", {}).get("training")
        doing = f"{stats.get('state', '')}{' study ' + str(stats['study']) if 'study' in stats else ''}"
        table.add_row(
            worker["name"],
            worker["device"],
            Text(worker["state"], style={"alive": "green", "silent": "red"}.get(worker["state"], "dim")),
            doing,
            short(stats.get("lanes")),
            "" if training is None else f"{training:.0%}",
        )
    return table


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


def usage(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What owners use, with their quotas where there are some."""
    table = Table("owner", "studies", "open", "trials left", "trials", "epochs", "kept")
    for each in found:
        most = each["quotas"]
        kept = each["dataset_bytes"] + each["model_bytes"]
        table.add_row(
            Text(each["owner"]),
            str(each["studies"]),
            _of(each["running"], most["running"]),
            _of(each["trials_left"], most["trials"]),
            str(each["trials"]),
            str(each["epochs"]),
            _of(f"{kept / 2**20:.1f} MiB", None if most["bytes"] is None else f"{most['bytes'] / 2**20:.1f} MiB"),
        )
    return table


def comparison(found: Mapping[str, Any]) -> RenderableType:
    """Studies beside each other."""
    scores = Table("study", "state", "metric", "best", "validation", "test", "unregularized")
    for each in found["studies"]:
        scores.add_row(
            Text(f"{each['id']} {each['name']}"),
            each["state"],
            each["metric"],
            number(each["best"]["value"] if each["best"] else None),
            number(each["validation"]),
            _estimate(each["test"]),
            _estimate(each["unregularized"]),
        )
    parts: list[RenderableType] = [*(Text(doubt, style="yellow") for doubt in found["doubts"]), scores]
    if found["differences"]:
        recipes = Table("setting", *(f"study {each['id']}" for each in found["studies"]))
        for each in found["differences"]:
            recipes.add_row(each["setting"], *(Text(short(value) or "–") for value in each["values"]))
        parts.append(recipes)
    return Group(*parts)


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None or found["low"] is None:
        return number(found["mean"] if found else None)
    return f"{number(found['mean'])} ({number(found['low'])} to {number(found['high'])})"


def _of(used: object, most: object | None) -> str:
    return str(used) if most is None else f"{used} of {most}"


def webhooks(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Webhooks, without their secrets."""
    table = Table("id", "owner", "address", "events", "state", "failing since")
    for each in found:
        state = each["state"] if each["reason"] is None else f"{each['state']}: {each['reason']}"
        failing = (each["failing_since"] or "")[:19]
        cells = (str(each["id"]), each["owner"], each["url"], ", ".join(each["events"]), state, failing)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def deliveries(page: Mapping[str, Any]) -> RenderableType:
    """What was sent to a webhook."""
    table = Table("id", "at", "type", "about", "state", "attempts", "last")
    for each in page["deliveries"]:
        last = each["error"] or short(each["status"])
        about = f"study {each['payload']['data']['study_id']}" if "study_id" in each["payload"]["data"] else ""
        cells = (str(each["id"]), each["created_at"][:19], each["type"], about, each["state"], str(each["attempts"]), last)
        table.add_row(*(Text(cell) for cell in cells))
    return table


PRUNED = {"studies": "studies", "models": "models of studies", "datasets": "data sets", "steps": "values of studies"}


def pruned(found: Mapping[str, Any]) -> RenderableType:
    """What was deleted as old, or would be."""
    table = Table("would be deleted" if found["dry_run"] else "deleted", "number", "ids")
    for kind, name in PRUNED.items():
        ids = found[kind]
        table.add_row(name, str(len(ids)), Text(", ".join(map(str, ids[:20])) + (" …" if len(ids) > 20 else "")))
    return table

"""Responses of the service as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.client.connection import Refused

if TYPE_CHECKING:  # the models take a while to load
    from service.result import Ablation, FrontTrial, Nested, Result, Setting, Spread
    from service.result.external import ExternalResult

_TARGETS = 12
_IMPORTANT = 5
_DIFFERENCES = 10
_FRONT = 10
_STATE_STYLE = {"finished": "green", "running": "cyan", "finalizing": "cyan", "failed": "red", "cancelled": "yellow"}


def seconds(value: float | None) -> str:
    """A duration in seconds, as "5 s", "2 min 05 s" or "1 h 30 min"."""
    if value is None:
        return "–"
    if round(value) < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float | None) -> str:
    """Four significant digits."""
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"


def refusal(error: Refused) -> RenderableType:
    """The errors of a rejected request, one row per field."""
    if not error.errors:
        return Text(str(error), style="red")
    table = Table(title="The service rejected the request", title_style="red", title_justify="left")
    for heading in ("field", "error", "value", "allowed"):
        table.add_column(heading, overflow="fold")
    for issue in error.errors:
        table.add_row(str(issue["field"]), str(issue["message"]), short(issue.get("value")), short(issue.get("allowed")))
    return table


def _external(found: ExternalResult) -> RenderableType:
    """The result of a study that a program ran."""
    title = f"{found.metric}: mean over {found.seeds} seeds" if found.seeds > 1 else found.metric
    scores = Table("setting", "validation", "test", "behind the winner", title=title, title_justify="left")
    settings = (found.winner, *([found.baseline] if found.baseline else []), *found.others)
    for place, setting in enumerate(settings):
        behind = setting.behind_winner
        told = f"{number(behind.mean)} ({number(behind.low)} to {number(behind.high)})" if behind else ""
        name = f"{setting.name} (tie)" if setting.name in found.ties else setting.name
        valid, test = (number(each.mean if each else None) for each in (setting.valid, setting.test))
        scores.add_row(Text(name, style="green" if place == 0 else ""), valid, test, told, end_section=place == 0)
    winning = Text.assemble(("Winning settings  ", "bold"), recipe(found.winner.params))
    parts: list[RenderableType] = [Text(found.verdict, style="bold"), "", scores, winning]
    if found.ablation:
        parts += [ablation(found.ablation, found.metric)]
    return Group(*parts)


def plan(planned: Mapping[str, Any]) -> RenderableType:
    """What a study would search."""
    return Text(f"searched: {', '.join(planned['searched'])}; at most {planned['most_trial_epochs']} trial epochs")


def data_sheet(sheet: Mapping[str, Any]) -> RenderableType:
    """How a study would read its data."""
    table = Table(title=f"{sheet['used']} of {sheet['rows']} rows are used", title_justify="left")
    for heading in ("column", "use", "read as", "distinct", "missing", "notes"):
        table.add_column(heading, overflow="fold")
    for column in sheet["columns"]:
        read_as = f"{column['kind']}: {column['why']}"
        counts = str(column["distinct"]), str(column["missing"])
        cells = (column["name"], column["use"], read_as, *counts, "\n".join(column["notes"]))
        table.add_row(*(Text(cell) for cell in cells))
    return Group(*(Text(note) for note in sheet["notes"]), table)


def studies(page: Mapping[str, Any]) -> RenderableType:
    """A page of studies."""
    table = Table("id", "name", "state", "trials", "best", "metric", "elapsed", "tags")
    for study in page["studies"]:
        trials, best = study["trials"], study["best"]
        table.add_row(
            str(study["id"]),
            study["name"],
            Text(study["state"], style=_STATE_STYLE.get(study["state"], "")),
            f"{trials['finished']}/{trials['budget']}",
            number(best["value"] if best else None),
            ", ".join(study["objectives"]),
            seconds(study["elapsed_seconds"]),
            ", ".join(study.get("tags", [])),
        )
    return table


def study(found: Mapping[str, Any]) -> RenderableType:
    """One study."""
    trials, best = found["trials"], found["best"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("study", f"{found['id']}  {found['name']}")
    reason = f" – {found['reason']}" if found["reason"] else ""
    table.add_row("state", Text(found["state"] + reason, style=_STATE_STYLE.get(found["state"], "")))
    counts = ", ".join(f"{trials[name]} {name}" for name in ("complete", "pruned", "fail", "running", "waiting"))
    table.add_row("trials", f"{trials['finished']} of {trials['budget']} finished ({counts})")
    if trials.get("searches", 1) > 1:
        table.add_row("", f"of {trials['searches']} searches that advance alike: nested validation")
    if len(found["objectives"]) > 1:
        table.add_row("objectives", ", ".join(f"{name} ({direction})" for name, direction in found["objectives"].items()))
    if best:
        table.add_row("best", f"{found['metric']} {number(best['value'])} in trial {best['number']}")
        table.add_row("", recipe(best["params"]))
    table.add_row("elapsed", seconds(found["elapsed_seconds"]))
    table.add_row("time left", seconds(found["remaining_seconds"]))
    for name, text in (("tags", ", ".join(found.get("tags", []))), ("notes", found.get("notes"))):
        if text:
            table.add_row(name, text)
    return table


def result(found: Result | ExternalResult) -> RenderableType:
    """The result of a study: verdict, scores, recipe, ablation, front, further findings."""
    from service.result.external import ExternalResult

    if isinstance(found, ExternalResult):
        return _external(found)
    metric = found.metric.replace("_", " ")
    scores = Table(title=f"{metric}: mean over {found.seeds} seeds", title_justify="left")
    scores.add_column("setting")
    scores.add_column("validation", justify="right")
    scores.add_column("test", justify="right")
    scores.add_column("95 % interval", justify="right")
    for place, setting in enumerate(found.settings):
        scores.add_row(*_score_row(setting, winner=place == 0, tie=setting.name in found.ties), end_section=place == 1)
    parts: list[RenderableType] = [
        Text(found.verdict, style="bold"),
        "",
        scores,
        Text.assemble(("Winning recipe  ", "bold"), recipe(found.winner.recipe)),
    ]
    if found.nested is not None:
        parts += [outer_folds(found.nested, metric)]
    if found.ablation:
        parts += [ablation(found.ablation, metric)]
    if found.front:
        parts += [front(found.front)]
    parts += [Text.assemble((f"{name}  ", "bold"), text) for name, text in _remarks(found)]
    rows, training = found.rows, found.utilization.get("training", 0)
    test = f"{rows.test} test (locked)" if found.nested is None else f"all {rows.test} test in their outer fold"
    parts.append(
        Text(
            f"Rows: {rows.train} training, {rows.valid} validation, {test}; {rows.duplicates} "
            f"duplicates kept on one side of the split. Wall time {seconds(found.wall_seconds)}, of which finalizing "
            f"{seconds(found.finalizing_seconds)}; the search spent {training:.0%} of its time in training.",
            style="dim",
        )
    )
    return Group(*parts)


def _remarks(found: Result) -> Iterator[tuple[str, str]]:
    """Further findings, one line each: a label and a text."""
    recommended, gain, gap, ensemble = found.recommended, found.gain, found.winner.gap, found.ensemble
    if recommended is not None:
        yield "Recommended", f"{recommended.name}: {recommended.reason}"
    if gain is not None:
        yield "Gain", f"{number(gain.mean)} on the test rows ({number(gain.low)} – {number(gain.high)})"
    if gap is not None:
        baseline = None if found.baseline.gap is None else found.baseline.gap.train_test
        yield "Generalization gap", f"{number(gap.train_test)} from training to test rows; unregularized {number(baseline)}"
    if ensemble is not None:
        test, single = ensemble.test, ensemble.single.test
        yield (
            "Ensemble",
            f"{len(ensemble.members)} trained networks combined: test {number(test.mean)} "
            f"({number(test.low)} – {number(test.high)}); best single network {number(single.mean)}",
        )
    if found.targets:
        each = [f"{one.name} {number(one.winner.mean)}" for one in found.targets[:_TARGETS]]
        more = f" and {len(found.targets) - _TARGETS} more" if len(found.targets) > _TARGETS else ""
        yield "Each target", f"test {found.metric.replace('_', ' ')}: {', '.join(each)}{more}"
    if found.model is not None and found.model.refit is not None:
        yield "Model", found.model.rule
    if found.importance is not None and found.importance.fanova:
        first = list(found.importance.fanova.items())[:_IMPORTANT]
        yield "Importance", ", ".join(f"{name} {share:.0%}" for name, share in first)


def comparison(found: Mapping[str, Any]) -> RenderableType:
    """The comparison of a replay with its original."""
    order = "" if found["same_order"] else ", told in a different order"
    if found["same"]:
        summary = (
            f"All {found['trials']} trials have the same parameters and values as in study {found['replay_of']}{order}."
        )
        return Text(summary, style="bold green")
    summary = (
        f"{found['differing']} of {found['trials']} trials differ from study {found['replay_of']}{order}; values differ "
        f"by at most {found['largest_difference']:.2g}, relative to the original."
    )
    table = Table("trial", "field", "was", "now")
    for each in found["differences"][:_DIFFERENCES]:
        table.add_row(str(each["number"]), each["field"], short(each["was"]), short(each["now"]))
    unequal = [Text(f"{name}: {was} then, {now} now", style="dim") for name, (was, now) in found["made_of"].items()]
    return Group(Text(summary, style="bold yellow"), table, *unequal)


def ablation(rows: Sequence[Ablation], metric: str) -> RenderableType:
    """The winner's scores without each of its regularizers."""
    table = Table(title="Ablation: the winner without one of its regularizers", title_justify="left")
    table.add_column("switched off")
    table.add_column(f"validation {metric}", justify="right")
    table.add_column("worse by", justify="right")
    table.add_column("95 % interval", justify="right")
    for row in sorted(rows, key=lambda row: -row.change):
        ends = "–" if math.isnan(row.low) else f"{number(row.low)} – {number(row.high)}"
        table.add_row(row.without, _spread(row.valid), number(row.change), ends)
    return table


def outer_folds(found: Nested, metric: str) -> RenderableType:
    """What each outer fold of nested validation chose, and its score."""
    score = found.score
    told = (
        f"{metric} {number(score.mean)} ({number(score.low)} – {number(score.high)}) is that of the procedure, from all "
        f"{score.n} rows; regularizers of the outer folds agree by {found.agreement:.0%}"
    )
    table = Table(title="The winners of the outer folds", title_justify="left")
    for heading in ("outer fold", "rows", "validation", "test", "unregularized", "regularizers"):
        table.add_column(heading, justify="left" if heading == "regularizers" else "right")
    for fold in found.folds:
        scores = (number(fold.valid), number(fold.test), number(fold.baseline))
        settings = recipe({name: fold.recipe[name] for name in fold.regularizers})
        table.add_row(str(fold.fold), str(fold.rows), *scores, settings or "none")
    return Group(Text.assemble(("Nested validation  ", "bold"), told), table)


def front(rows: Sequence[FrontTrial]) -> RenderableType:
    """The Pareto front: trials that no other trial dominates."""
    names = list(rows[0].values)
    count = "1 non-dominated trial" if len(rows) == 1 else f"{len(rows)} non-dominated trials"
    shown = f"; the first {_FRONT} are shown" if len(rows) > _FRONT else ""
    title = f"Pareto front of {' and '.join(names)}: {count}{shown}"
    table = Table(title=title, title_justify="left")
    table.add_column("trial")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("regularizers")
    for row in rows[:_FRONT]:
        settings = recipe({name: row.recipe[name] for name in row.regularizers})
        table.add_row(str(row.trial), *(number(row.values[name]) for name in names), settings or "none")
    return table


def recipe(settings: Mapping[str, Any]) -> str:
    """Settings with their values on one line."""
    return ", ".join(f"{name} {short(value)}" for name, value in settings.items())


def echo(console: Console, text: str) -> None:
    """Print a plain line, unwrapped even if it is longer than the terminal is wide, so that it can be copied."""
    console.print(text, highlight=False, soft_wrap=True)


def _score_row(setting: Setting, *, winner: bool, tie: bool) -> tuple[RenderableType, ...]:
    test = setting.test
    name = f"{setting.name}{' (winner)' if winner else ' (tie)' if tie else ''}"
    interval = "–" if test is None else f"{number(test.low)} – {number(test.high)}"
    style = "bold green" if winner else ""
    cells = (name, _spread(setting.valid), number(None if test is None else test.mean), interval)
    return tuple(Text(cell, style=style) for cell in cells)


def _spread(valid: Spread | None) -> str:
    return "did not train" if valid is None else f"{number(valid.mean)} ± {number(valid.std)}"


def short(value: Any) -> str:
    """A value in few words."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(short, value))
    return str(value)

"""Studies as they go: a line of each for the page of all, and a page of one, built as a report is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.report.axes import number
from service.report.charts_search import settings_of
from service.report.content import Block, Report, Section, Table, Text, Tile, objective
from service.report.findings import search
from service.report.nested import of_all_rows
from service.report.recipe import formatted
from service.store.records import StudyRecord, StudyState, TrialRecord

_LATEST = 12


@dataclass(frozen=True)
class Row:
    """A study on the page of all."""

    id: int
    name: str
    owner: str
    state: str
    begun: str
    finished: int
    budget: int
    told: str
    best: str
    page: str
    tags: Sequence[str]
    links: Mapping[str, str]


def row_of(study: StudyRecord) -> Row:
    """A study's line."""
    counts, best = study.counts, study.best
    parts = [f"{counts.finished} of {study.budget_trials} trials"]
    parts += [f"{count} {name}" for name, count in (("pruned", counts.pruned), ("failed", counts.fail)) if count]
    return Row(
        id=study.id,
        name=study.name,
        owner=study.owner,
        state=study.state,
        begun=_ago(study.created_at, study.now),
        finished=counts.finished,
        budget=study.budget_trials,
        told=" · ".join(parts),
        best=f"best {objective(study.metric)} {number(best.value)}" if best else "no value yet",
        page=f"/studies/{study.id}",
        tags=study.tags,
        links=_links(study),
    )


def build_live_report(study: StudyRecord, trials: Sequence[TrialRecord]) -> Report:
    """The page of a study, at whatever point it is."""
    metric, minimize = objective(study.metric), study.direction == "minimize"
    winner = study.best.number if study.best else None
    searched = search(of_all_rows(study, trials), metric, winner, minimize=minimize)
    sections = [
        Section("Notes", list(_notes(study))),
        Section("How the search goes", [*_part(study, trials), *searched]),
        Section("Best so far", list(_best(study))),
        Section("Latest trials", list(_latest(trials, metric))),
        Section("Warnings", [Text(text) for text in (study.advice or {}).get("warnings", [])]),
    ]
    aims = ", and ".join(f"{objective(name)}, to be {direction}d" for name, direction in study.objectives.items())
    return Report(
        title=study.name,
        subtitle=f"Study {study.id} of {study.owner}: {aims}",
        verdict=_verdict(study),
        tiles=list(_tiles(study, metric)),
        sections=[section for section in sections if section.blocks],
        links={"all studies": "/", **_links(study), "as JSON": f"/v1/studies/{study.id}"},
    )


def _notes(study: StudyRecord) -> Iterator[Block]:
    """What people have written, paragraph by paragraph as it is, and the tags."""
    yield from (Text(part) for part in study.notes.split("\n\n") if part.strip())
    if study.tags:
        yield Text(f"Tags: {', '.join(study.tags)}")


def _part(study: StudyRecord, trials: Sequence[TrialRecord]) -> Iterator[Block]:
    """That these are not all trials, where they are not."""
    if len(trials) < study.counts.all:
        yield Text(f"The latest {len(trials)} of {study.counts.all} trials.")


def _verdict(study: StudyRecord) -> str:
    searches = f", of {study.searches} searches that advance alike," if study.searches > 1 else ""
    done = f"{study.counts.finished} of {study.budget_trials} trials{searches}"
    match study.state:
        case StudyState.FINISHED:
            return str((study.result or {}).get("verdict", "The study is finished."))
        case StudyState.FAILED:
            return f"The study has failed: {study.reason}."
        case StudyState.FINALIZING:
            return f"{done} are done; the best settings are trained again over seeds."
        case StudyState.QUEUED:
            return f"The study waits for a {'program that asks for trials' if study.external else 'worker'}."
    return f"{done} are done; the study is {study.state}."


def _tiles(study: StudyRecord, metric: str) -> Iterator[Tile]:
    counts = study.counts
    yield Tile("State", study.state, _ago(study.created_at, study.now))
    yield Tile("Trials", f"{counts.finished} / {study.budget_trials}", f"{counts.running} running, {counts.waiting} waiting")
    if study.best is not None:
        rows = "validation data" if study.searches == 1 else "validation data of all rows"
        yield Tile(f"Best {metric}", number(study.best.value), f"trial {study.best.number}; {rows}, one seed")
    yield Tile("Ended early", str(counts.pruned), f"pruned; {counts.fail} failed")


def _best(study: StudyRecord) -> Iterator[Block]:
    if study.best is not None:
        rows = [(name, formatted(value)) for name, value in settings_of(study.best.params).items()]
        yield Table(("setting", f"trial {study.best.number}"), rows)


def _latest(trials: Sequence[TrialRecord], metric: str) -> Iterator[Block]:
    if trials:
        rows = [
            (f"trial {each.number}", each.state, number(each.value), str(each.epochs), each.stop_reason or "–")
            for each in reversed(trials[-_LATEST:])
        ]
        yield Table(("trial", "state", f"validation {metric}", "epochs", "ended because"), rows)


def _links(study: StudyRecord) -> dict[str, str]:
    here = f"/v1/studies/{study.id}"
    if study.state is not StudyState.FINISHED:
        return {}
    return {"report": f"{here}/report", **({} if study.external else {"model": f"{here}/model"}), "result": f"{here}/result"}


def _ago(then: datetime, now: datetime) -> str:
    """How long ago something was.

    >>> from datetime import timedelta, timezone
    >>> now = datetime(2026, 1, 2, tzinfo=timezone.utc)
    >>> [_ago(now - timedelta(seconds=each), now) for each in (5, 150, 8000, 200_000)]
    ['just now', '2 min ago', '2 h ago', '2 days ago']
    """
    seconds = (now - then).total_seconds()
    for least, size, unit in ((172_800, 86_400, "days"), (5400, 3600, "h"), (60, 60, "min")):
        if seconds >= least:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"

"""The report of a study that a program ran: what it told, and what follows from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.report import charts_scores
from service.report.axes import number
from service.report.content import Block, Code, Figure, Report, Section, Table, Text, Tile, objective, over_seeds
from service.report.findings import ablation, search
from service.report.recipe import formatted
from service.result import Reading
from service.result.external import ExternalResult, ExternalSetting, SeedInterval
from service.store.records import StudyRecord, TrialRecord


@dataclass(frozen=True)
class ExternalSource:
    """The data of such a report."""

    study: StudyRecord
    result: ExternalResult
    trials: Sequence[TrialRecord]
    test_record: Sequence[Reading] = ()

    @property
    def metric(self) -> str:
        """The metric's display name."""
        return objective(self.result.metric)


def build_external_report(source: ExternalSource) -> Report:
    """The whole report of a finished external study."""
    result, study = source.result, source.study
    minimize = result.direction == "minimize"
    regularizers = [ablation(result.ablation, source.metric)] if result.ablation else []
    sections = [
        Section("The answer", list(_answer(source))),
        Section("Trade-offs between objectives", list(_front(source))),
        Section("Which regularizers helped", regularizers),
        Section("How the search went", list(search(source.trials, source.metric, result.winner.trial, minimize=minimize))),
        Section("The settings", [Code(json.dumps(dict(result.winner.params), indent=2), "json")]),
        Section("How this was measured", list(map(Text, _protocol(source)))),
    ]
    here = f"/v1/studies/{study.id}"
    aims = ", and ".join(f"{objective(name)}, to be {direction}d" for name, direction in study.objectives.items())
    return Report(
        title=study.name,
        subtitle=f"Study {study.id}, run by a program: {aims}",
        verdict=result.verdict,
        tiles=list(_tiles(source)),
        sections=[section for section in sections if section.blocks],
        links={
            "dashboard": f"/dashboard/studies/{study.id}",
            "result": f"{here}/result",
            "as Markdown": f"{here}/report?format=markdown",
            "as PDF": f"{here}/report?format=pdf",
        },
    )


def _tiles(source: ExternalSource) -> Iterator[Tile]:
    result = source.result
    for name, setting in (("Winner", result.winner), ("Unregularized", result.baseline)):
        if setting is not None and setting.valid is not None:
            detail = f"± {number(setting.valid.std)} over {setting.valid.n} seeds"
            yield Tile(f"{name}, {source.metric}", number(setting.valid.mean), detail)
    for name, gain in (("Improvement", result.gain), ("Improvement on test data", result.test_gain)):
        if gain is not None and math.isfinite(gain.low):
            clear = "excludes 0" if gain.excludes_zero else "includes 0"
            yield Tile(name, number(gain.mean), f"95 %: {number(gain.low)} to {number(gain.high)}; {clear}")


def _answer(source: ExternalSource) -> Iterator[Block]:
    result = source.result
    settings = [result.winner, *([result.baseline] if result.baseline else []), *result.others]
    rows = [_row(setting, tie=setting.name in result.ties) for setting in settings]
    head = ("setting", f"validation {source.metric}", "test", "behind the winner by", "95 % interval")
    behind = [(each.name, each.behind_winner) for each in settings if each.behind_winner is not None]
    if behind:
        drawing = charts_scores.changes(
            [(name, found.mean, found.low, found.high) for name, found in behind],
            f"{source.metric}, worse than the winner by",
            "How far the other settings are behind the winner",
        )
        caption = (
            "Differences to the winner, seed by seed, with 95 % intervals of their means. Where an interval includes zero "
            "the two can't be told apart."
        )
        yield Figure(drawing, caption, Table(head, rows), wide=True)
    else:
        yield Table(head, rows)
    if result.ties:
        yield Text(f"These settings can't be distinguished from the winner: {', '.join(result.ties)}.")
    if math.isfinite(result.optimism) and result.optimism > 0:
        yield Text(
            f"Over new seeds the winner is worse than its trial was by {number(result.optimism)}: the best of many trials "
            "is a lucky one."
        )
    for setting in settings:
        if setting.failed:
            yield Text(f"Runs of {setting.name} failed: {'; '.join(setting.failed)}.")


def _row(setting: ExternalSetting, *, tie: bool) -> tuple[str, ...]:
    return (
        f"{setting.name} (tie)" if tie else setting.name,
        over_seeds(setting.valid) if setting.valid else "–",
        over_seeds(setting.test) if setting.test else "–",
        number(setting.behind_winner.mean) if setting.behind_winner else "–",
        _ends(setting.behind_winner),
    )


def _ends(found: SeedInterval | None) -> str:
    return "–" if found is None or math.isnan(found.low) else f"{number(found.low)} to {number(found.high)}"


def _front(source: ExternalSource) -> Iterator[Block]:
    front = source.result.front
    if front:
        names = list(front[0].values)
        rows = [
            (
                f"trial {each.trial}",
                *(number(each.values[name]) for name in names),
                ", ".join(f"{name} {formatted(value)}" for name, value in each.params.items()),
            )
            for each in front
        ]
        yield Text("Trials that no other one dominates, by being as good in every objective and better in one.")
        yield Table(("trial on the front", *map(objective, names), "settings"), rows)


def _protocol(source: ExternalSource) -> Iterator[str]:
    result, budget = source.result, source.study.spec["budget"]
    yield (
        f"A program of the user's ran {source.study.counts.finished} trials of at most {budget['epochs']} steps and told "
        f"their {source.metric}; data, network and training are its own, and nothing here could check them."
    )
    if result.seeds > 1:
        yield (
            f"The best {budget['finalists']} settings were then run again with {result.seeds} seeds, the same for all; the "
            "winner has the best mean. It was run without any regularizer, and without each of its own. Intervals are "
            "Student's t of differences seed by seed: they account for the choice of seeds, not of data."
        )
    if result.winner.test is not None:
        yield (
            "The program told scores on test data with these runs. Those of the winner and of the unregularized setting "
            "were read once everything was decided; no choice depends on them."
        )

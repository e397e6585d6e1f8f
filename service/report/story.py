"""From a study's result to its report: what is said, in which order, and which charts belong to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from service.report import charts_scores, charts_search
from service.report.axes import number
from service.report.content import Block, Figure, Report, Section, Source, Table, Text, Tile, between, objective, over_seeds
from service.report.front import trade_offs
from service.report.networks import predictions, training
from service.report.protocol import protocol, provenance
from service.report.recipe import recipe
from service.report.scene import Role
from service.result import Ensemble, Importance, Interval, Selection, Spread

_MOST_SHARES = 10
_MOST_EFFECTS = 8
_BEST_TRIALS = 10


def tell(source: Source) -> Report:
    """The whole report of a finished study."""
    result, study = source.result, source.study
    sections = [
        Section("The answer", list(_answer(source))),
        Section("What is traded for what", list(trade_offs(source))),
        Section("Which regularizer earned it", list(_credit(source))),
        Section("How it trained", list(training(source))),
        Section("What it predicts", list(predictions(source))),
        Section("How the search went", list(_search(source))),
        Section("The recipe", list(recipe(source))),
        Section("How this was measured", list(protocol(source))),
        Section("Where it comes from", list(provenance(source))),
    ]
    here = f"/v1/studies/{study.id}"
    links = {"dashboard": f"/dashboard/studies/{study.id}", "result": f"{here}/result"}
    if result.model is not None and result.model.available:
        links["model"] = f"{here}/model"
    data = study.spec.get("data", {})
    what = data.get("dataset") or data.get("path") or "data"
    return Report(
        title=study.name,
        subtitle=f"Study {study.id} on {what}: {_aim(source)}",
        verdict=result.verdict,
        tiles=list(_tiles(source)),
        sections=[section for section in sections if section.blocks],
        links={**links, "as Markdown": f"{here}/report?format=markdown", "as PDF": f"{here}/report?format=pdf"},
    )


def _aim(source: Source) -> str:
    return ", and ".join(f"{objective(name)}, to be {direction}d" for name, direction in source.study.objectives.items())


def _tiles(source: Source) -> Iterator[Tile]:
    result = source.result
    for name, setting in (("Winner", result.winner), ("Unregularized", result.baseline)):
        if setting.test is not None:
            yield Tile(f"{name}, test {source.metric}", number(setting.test.mean), f"95 %: {between(setting.test)}")
    if result.gain is not None:
        clear = "clear of 0" if result.gain.excludes_zero else "may be 0"
        yield Tile("Better by", number(result.gain.mean), f"95 %: {between(result.gain)}; {clear}")
    rows = result.rows
    yield Tile("Test rows", f"{rows.test:,}", f"of {rows.train + rows.valid + rows.test:,} rows; locked")


def _scored(source: Source) -> list[tuple[str, Role, Interval, Spread]]:
    """Name for people, role in pictures, and the scores, of all that were trained over seeds."""
    result = source.result
    simplest = None if result.recommended is None else result.recommended.name
    marks = dict.fromkeys(result.ties, " (tie)") | {simplest: " (simplest)"}
    named: list[tuple[str, Role]] = [(f"winner ({result.winner.name})", "winner"), (result.baseline.name, "baseline")]
    named += [(other.name + marks.get(other.name, ""), "other") for other in result.others]
    return [
        (name, role, setting.test, setting.valid)
        for (name, role), setting in zip(named, result.settings, strict=True)
        if setting.test is not None and setting.valid is not None
    ]


def _answer(source: Source) -> Iterator[Block]:
    scored = _scored(source)
    if scored:
        better = "left" if source.minimize else "right"
        table = Table(
            ("setting", f"validation {source.metric}", f"test {source.metric}", "95 % interval"),
            [(name, over_seeds(valid), number(test.mean), between(test)) for name, _, test, valid in scored],
        )
        caption = (
            f"Test {source.metric}, mean over {source.result.seeds} seeds (dots) with 95 % intervals (lines), and "
            f"the mean on validation rows (rings). Further {better} is better. A dot on the wrong side of its ring is what "
            "choosing by validation scores costs."
        )
        yield Figure(charts_scores.intervals(scored, source.metric), caption, table, wide=True)
    yield from map(Text, _remarks(source))


def _remarks(source: Source) -> Iterator[str]:
    """What else there is to know, in words."""
    result = source.result
    if result.ties:
        yield f"On validation data these can't be told apart from the winner: {', '.join(result.ties)}."
    recommended = result.recommended
    if recommended is not None and recommended.name != result.winner.name:
        yield f"Of these the simplest is {recommended.name}: {recommended.reason}."
    if result.selection is not None:
        yield _optimism(result.selection)
    if result.ensemble is not None:
        yield _together(result.ensemble, source.metric)


def _together(ensemble: Ensemble, metric: str) -> str:
    gain = ensemble.gain
    clear = "better" if gain.low > 0 else "worse" if gain.high < 0 else "not clearly different"
    return (
        f"An ensemble of {len(ensemble.members)} of the networks that were trained anyway has a test {metric} of "
        f"{number(ensemble.test.mean)} ({between(ensemble.test)}); the winner's best single network has "
        f"{number(ensemble.single.test.mean)}. It is {clear}."
    )


def _optimism(selection: Selection) -> str:
    """How far the search's own best value was from the truth."""
    later = [
        f"{number(value)} {where}, {number(abs(optimism))} {'worse' if optimism > 0 else 'better'}"
        for value, optimism, where in (
            (selection.valid, selection.optimism_valid, "over new seeds on the same rows"),
            (selection.test, selection.optimism_test, "on the test rows"),
        )
    ]
    return (
        f"The search's best validation value was {number(selection.found)} ({selection.name}, one seed, the "
        "luckiest of "
        f"many). The same setting has {later[0]}, and {later[1]}: the best value of a search is not to be believed."
    )


def _credit(source: Source) -> Iterator[Block]:
    result = source.result
    if result.ablation:
        yield _ablation(source)
    importance = result.importance
    if importance is not None and (importance.fanova or importance.ped_anova):
        yield _importance(importance)
    elif importance is not None and importance.reason:
        yield Text(f"Importances were not computed: {importance.reason}.")
    effects = [each for each in result.effects or () if each.bins][:_MOST_EFFECTS]
    if effects:
        caption = (
            f"Mean validation {source.metric} of complete trials by what a setting was, with standard errors. Trials "
            "are where the "
            "search went, not an experiment: a setting that good trials had in common looks good, too."
        )
        yield Figure(charts_search.effects(effects, source.metric), caption)


def _ablation(source: Source) -> Figure:
    ablation = sorted(source.result.ablation, key=lambda row: -row.change)
    drawing = charts_scores.changes(
        [(row.without, row.change, row.low, row.high) for row in ablation],
        f"validation {source.metric}, worse by",
        "What is lost without each of the winner's regularizers",
    )
    table = Table(
        ("switched off", f"validation {source.metric}", "worse by", "95 % interval"),
        [
            (
                row.without,
                over_seeds(row.valid),
                number(row.change),
                f"{number(row.low)} to {number(row.high)}" if math.isfinite(row.low) else "–",
            )
            for row in ablation
        ],
    )
    caption = (
        "The winner trained again with one regularizer switched off at a time, over the same seeds. A bar to the "
        "right: this "
        "regularizer helped by so much. Whiskers, 95 % over seeds, that reach across zero: it can't be told from chance."
    )
    return Figure(drawing, caption, table, wide=True)


def _importance(importance: Importance) -> Figure:
    kinds = {"fANOVA": importance.fanova, "PED-ANOVA": importance.ped_anova}
    found = {name: shares for name, shares in kinds.items() if shares}
    first = next(iter(found.values()))
    order = sorted({name for shares in found.values() for name in shares}, key=lambda name: (-first.get(name, 0.0), name))
    rows = [(name, [shares.get(name) for shares in found.values()]) for name in order[:_MOST_SHARES]]
    caption = (
        f"Share of the differences between {importance.trials} complete trials that goes back to each setting "
        "(fANOVA, Hutter et "
        "al. 2014), and what it took to be among the best tenth (PED-ANOVA, Watanabe et al. 2023)."
    )
    table = Table(
        ("setting", *found), [(name, *(f"{v:.1%}" if v is not None else "–" for v in shares)) for name, shares in rows]
    )
    return Figure(charts_scores.shares(rows, list(found), "Importance of settings"), caption, table)


def _search(source: Source) -> Iterator[Block]:
    trials = source.trials
    winner = source.result.winner.trial
    valued = [trial for trial in trials if trial.value is not None]
    if len(valued) < 2:
        return
    counts = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "fail")}
    caption = (
        f"{counts['complete']} complete trials (dots), {counts['pruned']} pruned ones (rings, at the best value they had), "
        f"{counts['fail']} that failed. The line is the best complete value so far; the large dot is the winner's "
        "trial. Values off the chart lie on its edge."
    )
    drawing = charts_search.history(trials, source.metric, minimize=source.minimize, winner=winner)
    yield Figure(drawing, caption, _best_trials(source))
    lines = charts_search.parallel(trials, source.metric, minimize=source.minimize, winner=winner)
    if lines is not None:
        caption = (
            "Every line is a complete trial, from setting to setting down to its value; the best tenth is coloured, "
            "the winner is "
            "thick. Where coloured lines run together, good trials agreed; where they spread, the setting did not matter."
        )
        yield Figure(lines, caption)


def _best_trials(source: Source) -> Table:
    sign = 1.0 if source.minimize else -1.0
    complete = [trial for trial in source.trials if trial.state == "complete" and trial.value is not None]
    best = sorted(complete, key=lambda trial: sign * (trial.value or 0.0))[:_BEST_TRIALS]
    rows = [
        (
            f"trial {trial.number}",
            number(trial.value),
            ", ".join(f"{name} {_short(value)}" for name, value in charts_search.settings_of(trial.params).items()),
        )
        for trial in best
    ]
    return Table(("best trials", f"validation {source.metric}", "settings"), rows)


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)

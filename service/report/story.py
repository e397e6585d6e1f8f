"""Builds a study's report from its result: the sections in their order, with texts and charts."""

from __future__ import annotations

from collections.abc import Iterator

from service.report import charts_scores, charts_search
from service.report.axes import number
from service.report.content import Block, Figure, Report, Section, Source, Table, Text, Tile, between, objective, over_seeds
from service.report.data import data_sheet
from service.report.findings import ablation, search
from service.report.front import trade_offs
from service.report.nested import nested, of_all_rows
from service.report.networks import predictions, training
from service.report.protocol import protocol, provenance
from service.report.recipe import recipe
from service.report.scene import Role
from service.report.targets import per_target
from service.result import Coverage, Ensemble, Importance, Interval, Selection, Spread, Temperature, Thresholds, WarmStart

_MAX_SHARES = 10
_MAX_EFFECTS = 8


def build_report(source: Source) -> Report:
    """The whole report of a finished study."""
    result, study = source.result, source.study
    searched = search(of_all_rows(study, source.trials), source.metric, result.winner.trial, minimize=source.minimize)
    sections = [
        Section("The answer", list(_answer(source))),
        Section("All rows as test rows", list(nested(source))),
        Section("Trade-offs between objectives", list(trade_offs(source))),
        Section("Which regularizers helped", list(_credit(source))),
        Section("How it trained", list(training(source))),
        Section("What it predicts", list(predictions(source))),
        Section("How the search went", list(searched)),
        Section("The recipe", list(recipe(source))),
        Section("The data", list(data_sheet(source))),
        Section("How this was measured", list(protocol(source))),
        Section("Provenance", list(provenance(source))),
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
        clear = "excludes 0" if result.gain.excludes_zero else "includes 0"
        yield Tile("Improvement", number(result.gain.mean), f"95 %: {between(result.gain)}; {clear}")
    rows = result.rows
    if result.nested is not None:
        yield Tile("Test rows", f"{rows.test:,}", f"all, in {len(result.nested.folds)} outer folds")
    else:
        yield Tile("Test rows", f"{rows.test:,}", f"of {rows.train + rows.valid + rows.test:,} rows; locked")


def _scored(source: Source) -> list[tuple[str, Role, Interval, Spread]]:
    """Display name, role in charts and scores of all settings that were trained over seeds."""
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
            f"the mean on validation rows (rings). Further {better} is better. Where a dot is worse than its ring, the "
            "validation score was too optimistic: settings were chosen by it."
        )
        yield Figure(charts_scores.intervals(scored, source.metric), caption, table, wide=True)
    if source.result.targets:
        yield from per_target(source.result.targets, source.metric)
    yield from map(Text, _remarks(source))


def _remarks(source: Source) -> Iterator[str]:
    """Further findings, in words."""
    result = source.result
    if result.ties:
        yield f"On validation rows, these settings can't be distinguished from the winner: {', '.join(result.ties)}."
    recommended = result.recommended
    if recommended is not None and recommended.name != result.winner.name:
        yield f"The simplest of them is {recommended.name}: {recommended.reason}."
    if result.selection is not None:
        yield _optimism(result.selection)
    if result.warm_start is not None:
        yield _begun(result.warm_start, source.metric)
    if result.coverage is not None:
        yield _covered(result.coverage)
    if result.ensemble is not None:
        yield _together(result.ensemble, source.metric)
    if result.model is not None and result.model.calibration is not None:
        yield _sureness(result.model.calibration)
    if result.model is not None and result.model.thresholds is not None:
        yield _deciding(result.model.thresholds, source.metric)
    if result.model is not None and result.model.refit is not None:
        refit = result.model.refit
        yield (
            f"{result.model.rule} The average of the winner's networks in the finals, which had not seen the test rows, "
            f"has a test {source.metric} of {number(refit.test.mean)} ({between(refit.test)})."
        )


def _together(ensemble: Ensemble, metric: str) -> str:
    gain = ensemble.gain
    clear = "better" if gain.low > 0 else "worse" if gain.high < 0 else "not clearly different"
    return (
        f"An ensemble of {len(ensemble.members)} of the trained networks has a test {metric} of "
        f"{number(ensemble.test.mean)} ({between(ensemble.test)}), the winner's best single network has "
        f"{number(ensemble.single.test.mean)}. The ensemble is {clear}."
    )


def _covered(found: Coverage) -> str:
    return (
        f"Predicted is the {number(found.quantile)} quantile: {found.quantile:.0%} of the targets should be at most the "
        f"prediction. Of the test rows it is {found.winner:.1%}"
        + (f", by the unregularized network {found.baseline:.1%}." if found.baseline >= 0 else ".")
    )


def _sureness(calibration: Temperature) -> str:
    if calibration.temperature == 1:
        return "Its probabilities are left as they are: no temperature fits the validation rows better, or these are few."
    kind = "too sure" if calibration.temperature > 1 else "too unsure"
    return (
        f"Its networks were {kind} of themselves: validation rows gave the temperature {number(calibration.temperature)} "
        "for their probabilities, with which the cross-entropy on the test rows is "
        f"{number(calibration.test_after)} instead of {number(calibration.test_before)}. Predicted classes stay the same."
    )


def _begun(found: WarmStart, metric: str) -> str:
    which = ", ".join(map(str, found.studies))
    return (
        f"The search began with the trials of {'study' if len(found.studies) == 1 else 'studies'} {which}. Of its first "
        f"trials, the {found.informed_trials} drawn by these have a median {metric} of {number(found.informed)} on "
        f"validation rows, the {found.random_trials} drawn at random {number(found.random)}."
    )


def _deciding(found: Thresholds, metric: str) -> str:
    if not any(found.biases):
        return "It decides for what is most probable: no thresholds score better on validation rows."
    return (
        f"It decides by thresholds that validation rows have determined, with which the test {metric} of the networks of "
        f"the finals is {number(found.test_after)} instead of {number(found.test_before)}. Probabilities stay the same."
    )


def _optimism(selection: Selection) -> str:
    """How optimistic the best value of the search was."""
    later = [
        f"{number(value)} {where}, {number(abs(optimism))} {'worse' if optimism > 0 else 'better'}"
        for value, optimism, where in (
            (selection.valid, selection.optimism_valid, "over new seeds on the same rows"),
            (selection.test, selection.optimism_test, "on the test rows"),
        )
    ]
    return (
        f"The best validation value of the search was {number(selection.found)} ({selection.name}, one seed, the luckiest "
        f"of many). The same setting has {later[0]}, and {later[1]}. Do not take the best value of a search at face value."
    )


def _credit(source: Source) -> Iterator[Block]:
    result = source.result
    if result.ablation:
        yield ablation(result.ablation, source.metric)
    importance = result.importance
    if importance is not None and (importance.fanova or importance.ped_anova):
        yield _importance(importance)
    elif importance is not None and importance.reason:
        yield Text(f"Importances were not computed: {importance.reason}.")
    effects = [each for each in result.effects or () if each.bins][:_MAX_EFFECTS]
    if effects:
        caption = (
            f"Mean validation {source.metric} of complete trials by the value of a setting, with standard errors. The "
            "trials follow the search, so this is not a controlled experiment: a value may look good only because good "
            "trials share it."
        )
        yield Figure(charts_search.effects(effects, source.metric), caption)


def _importance(importance: Importance) -> Figure:
    kinds = {"fANOVA": importance.fanova, "PED-ANOVA": importance.ped_anova}
    found = {name: shares for name, shares in kinds.items() if shares}
    first = next(iter(found.values()))
    order = sorted({name for shares in found.values() for name in shares}, key=lambda name: (-first.get(name, 0.0), name))
    rows = [(name, [shares.get(name) for shares in found.values()]) for name in order[:_MAX_SHARES]]
    caption = (
        f"Share of each setting in the variance between {importance.trials} complete trials (fANOVA, Hutter et al. 2014), "
        "and its importance for being among the best tenth of them (PED-ANOVA, Watanabe et al. 2023)."
    )
    table = Table(
        ("setting", *found), [(name, *(f"{v:.1%}" if v is not None else "–" for v in shares)) for name, shares in rows]
    )
    return Figure(charts_scores.shares(rows, list(found), "Importance of settings"), caption, table)

"""From a study's result to its report: what is said, in which order, and which charts belong to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.report import charts_scores, charts_search
from service.report.axes import number
from service.report.content import Block, Figure, Report, Section, Source, Table, Text, Tile, objective
from service.report.front import trade_offs
from service.report.networks import predictions, training
from service.report.protocol import protocol, provenance
from service.report.recipe import recipe
from service.report.scene import Role

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
    if result.get("model", {}).get("available"):
        links["model"] = f"{here}/model"
    data = study.spec.get("data", {})
    what = data.get("dataset") or data.get("path") or "data"
    return Report(
        title=study.name,
        subtitle=f"Study {study.id} on {what}: {_aim(source)}",
        verdict=str(result.get("verdict", "This study has no verdict.")),
        tiles=list(_tiles(source)),
        sections=[section for section in sections if section.blocks],
        links={**links, "as Markdown": f"{here}/report?format=markdown", "as PDF": f"{here}/report?format=pdf"},
    )


def _aim(source: Source) -> str:
    return ", and ".join(f"{objective(name)}, to be {direction}d" for name, direction in source.study.objectives.items())


def _tiles(source: Source) -> Iterator[Tile]:
    result = source.result
    for key, name in (("winner", "Winner"), ("baseline", "Unregularized")):
        test = result.get(key, {}).get("test")
        if test:
            yield Tile(f"{name}, test {source.metric}", number(test["mean"]), f"95 %: {_between(test)}")
    gain = result.get("gain")
    if gain:
        clear = "clear of 0" if gain["low"] > 0 or gain["high"] < 0 else "may be 0"
        yield Tile("Better by", number(gain["mean"]), f"95 %: {_between(gain)}; {clear}")
    rows = result.get("rows")
    if rows:
        yield Tile(
            "Test rows", f"{rows['test']:,}", f"of {sum(rows[part] for part in ('train', 'valid', 'test')):,} rows; locked"
        )


def _between(interval: Mapping[str, Any]) -> str:
    return f"{number(interval['low'])} to {number(interval['high'])}"


def _settings(source: Source) -> list[tuple[str, Role, Mapping[str, Any]]]:
    """Name for people, role in pictures, and the setting, of all that were trained over seeds."""
    result = source.result
    ties, recommended = set(result.get("ties", ())), result.get("recommended", {}).get("name")
    found: list[tuple[str, Role, Mapping[str, Any]]] = []
    if "winner" in result:
        found.append((f"winner ({result['winner']['name']})", "winner", result["winner"]))
    if "baseline" in result:
        found.append((result["baseline"]["name"], "baseline", result["baseline"]))
    for other in result.get("others", ()):
        mark = " (simplest)" if other["name"] == recommended else " (tie)" if other["name"] in ties else ""
        found.append((other["name"] + mark, "other", other))
    return found


def _answer(source: Source) -> Iterator[Block]:
    settings = _settings(source)
    scored = [(name, role, said) for name, role, said in settings if said.get("test") and said.get("valid")]
    if scored:
        better = "left" if source.minimize else "right"
        table = Table(
            ("setting", f"validation {source.metric}", f"test {source.metric}", "95 % interval"),
            [
                (name, _spread(said["valid"]), number(said["test"]["mean"]), _between(said["test"]))
                for name, _, said in scored
            ],
        )
        caption = (
            f"Test {source.metric}, mean over {source.result.get('seeds', 'several')} seeds (dots) with 95 % intervals "
            "(lines), and "
            f"the mean on validation rows (rings). Further {better} is better. A dot on the wrong side of its ring is what "
            "choosing by validation scores costs."
        )
        yield Figure(charts_scores.intervals(scored, source.metric), caption, table, wide=True)
    yield from map(Text, _remarks(source))


def _remarks(source: Source) -> Iterator[str]:
    """What else there is to know, in words."""
    result = source.result
    if result.get("ties"):
        names = ", ".join(result["ties"])
        yield f"On validation data these can't be told apart from the winner: {names}."
    recommended = result.get("recommended")
    if recommended and recommended["name"] != result.get("winner", {}).get("name"):
        yield f"Of these the simplest is {recommended['name']}: {recommended['reason']}."
    if result.get("selection"):
        yield _optimism(result["selection"])
    ensemble = result.get("ensemble")
    if ensemble:
        clear = (
            "better" if ensemble["gain"]["low"] > 0 else "worse" if ensemble["gain"]["high"] < 0 else "not clearly different"
        )
        yield (
            f"An ensemble of {len(ensemble['members'])} of the networks that were trained anyway has a test "
            f"{source.metric} of "
            f"{number(ensemble['test']['mean'])} ({_between(ensemble['test'])}); the winner's best single network has "
            f"{number(ensemble['single']['test']['mean'])}. It is {clear}."
        )


def _optimism(selection: Mapping[str, Any]) -> str:
    """How far the search's own best value was from the truth."""
    later = [
        f"{number(selection[part])} {where}, {number(abs(selection[key]))} {'worse' if selection[key] > 0 else 'better'}"
        for part, where, key in (
            ("valid", "over new seeds on the same rows", "optimism_valid"),
            ("test", "on the test rows", "optimism_test"),
        )
    ]
    return (
        f"The search's best validation value was {number(selection['found'])} ({selection['name']}, one seed, the "
        "luckiest of "
        f"many). The same setting has {later[0]}, and {later[1]}: the best value of a search is not to be believed."
    )


def _spread(valid: Mapping[str, Any]) -> str:
    return f"{number(valid['mean'])} ± {number(valid['std'])}"


def _credit(source: Source) -> Iterator[Block]:
    result = source.result
    ablation = sorted(result.get("ablation", ()), key=lambda row: -row["change"])
    if ablation:
        rows = [(row["without"], row["change"], row.get("low"), row.get("high")) for row in ablation]
        drawing = charts_scores.changes(
            rows, f"validation {source.metric}, worse by", "What is lost without each of the winner's regularizers"
        )
        table = Table(
            ("switched off", f"validation {source.metric}", "worse by", "95 % interval"),
            [
                (
                    row["without"],
                    _spread(row["valid"]),
                    number(row["change"]),
                    _between(row) if row.get("low") is not None else "–",
                )
                for row in ablation
            ],
        )
        caption = (
            "The winner trained again with one regularizer switched off at a time, over the same seeds. A bar to the "
            "right: this "
            "regularizer helped by so much. Whiskers, 95 % over seeds, that reach across zero: it can't be told from chance."
        )
        yield Figure(drawing, caption, table, wide=True)
    importance = result.get("importance") or {}
    kinds = [kind for kind in ("fanova", "ped_anova") if importance.get(kind)]
    if kinds:
        yield _importance(importance, kinds)
    elif importance.get("reason"):
        yield Text(f"Importances were not computed: {importance['reason']}.")
    effects = result.get("effects") or []
    effects = [each for each in effects if each["bins"]][:_MOST_EFFECTS]
    if effects:
        caption = (
            f"Mean validation {source.metric} of complete trials by what a setting was, with standard errors. Trials "
            "are where the "
            "search went, not an experiment: a setting that good trials had in common looks good, too."
        )
        yield Figure(charts_search.effects(effects, source.metric), caption)


def _importance(importance: Mapping[str, Any], kinds: Sequence[str]) -> Figure:
    names = {"fanova": "fANOVA", "ped_anova": "PED-ANOVA"}
    first = importance[kinds[0]]
    order = sorted({name for kind in kinds for name in importance[kind]}, key=lambda name: -first.get(name, 0.0))[
        :_MOST_SHARES
    ]
    rows = [(name, [importance[kind].get(name) for kind in kinds]) for name in order]
    said = [names[kind] for kind in kinds]
    caption = (
        f"Share of the differences between {importance['trials']} complete trials that goes back to each setting "
        "(fANOVA, Hutter et "
        "al. 2014), and what it took to be among the best tenth (PED-ANOVA, Watanabe et al. 2023)."
    )
    table = Table(
        ("setting", *said), [(name, *(f"{v:.1%}" if v is not None else "–" for v in found)) for name, found in rows]
    )
    return Figure(charts_scores.shares(rows, said, "Importance of settings"), caption, table)


def _search(source: Source) -> Iterator[Block]:
    trials = source.trials
    winner = source.result.get("winner", {}).get("trial")
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

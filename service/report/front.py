"""The section of a study with several objectives: its Pareto front, and how finalists from it score over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.report import charts_front
from service.report.axes import number
from service.report.content import Block, Figure, Source, Table, Text, objective, over_seeds
from service.report.recipe import formatted
from service.report.scene import Drawing
from service.result import FrontTrial, Setting
from service.spec.metrics import Further

_MAX_ROWS = 20


def trade_offs(source: Source) -> Iterator[Block]:
    """Charts and a table of the front; nothing if the study has a single objective."""
    found = source.result.front
    if not found:
        return
    names = list(found[0].values)
    for place, other in enumerate(names[1:]):
        pair = f"{objective(names[0])} and {objective(other)}"
        caption = (
            f"Complete trials by {pair} on validation rows, one seed each. The {len(found)} on the Pareto front are "
            f"coloured: no other trial is at least as good in {_every(names)} and better in one. The large dot is the "
            "winner's trial. Values outside the chart are drawn on its edge."
        )
        table = _table(found, names) if place == 0 else None
        yield Figure(_drawing(source, found, names[0], other, stairs=len(names) == 2), caption, table, wide=True)
    rows = [row for each in source.result.settings if (row := _trained_again(each, names))]
    if rows:
        first, *others = map(objective, names)
        yield Text(
            "Trials on the front are lucky ones, as is the best trial of any search. Scores of the settings that were "
            f"trained again, on the same validation rows, over {source.result.seeds} new seeds:"
        )
        yield Table(("setting", f"validation {first}", *others, f"test {first}"), rows)


def _drawing(source: Source, found: Sequence[FrontTrial], first: Further, other: Further, *, stairs: bool) -> Drawing:
    trials = [
        (trial.number, trial.value, trial.also[other])
        for trial in source.trials
        if trial.state == "complete" and trial.value is not None and other in trial.also
    ]
    front = [(each.trial, each.values[first], each.values[other]) for each in found]
    winner = source.result.winner.trial
    return charts_front.front(trials, front, (objective(first), objective(other)), stairs=stairs, winner=winner)


def _every(names: Sequence[Further]) -> str:
    return "both" if len(names) == 2 else "all objectives"


def _table(found: Sequence[FrontTrial], names: Sequence[Further]) -> Table:
    head = ("trial on the front", *(objective(name) for name in names), "regularizers")
    rows = [
        (
            f"trial {each.trial}",
            *(number(each.values[name]) for name in names),
            ", ".join(f"{name} {formatted(each.recipe[name])}" for name in each.regularizers) or "none",
        )
        for each in found[:_MAX_ROWS]
    ]
    return Table(head, rows)


def _trained_again(setting: Setting, names: Sequence[Further]) -> tuple[str, ...] | None:
    """The scores of a setting over seeds; None if it was not trained."""
    if setting.valid is None or setting.test is None or not setting.also:
        return None
    spreads = [setting.valid, *(setting.also[name] for name in names[1:])]
    return (setting.name, *map(over_seeds, spreads), number(setting.test.mean))

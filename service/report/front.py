"""The section on a study of several objectives: its front, and what finalists from it came to over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.report import charts_front
from service.report.axes import number
from service.report.content import Block, Figure, Source, Table, Text, objective, over_seeds
from service.report.recipe import said
from service.report.scene import Drawing
from service.result import FrontTrial, Setting
from service.spec.metrics import Further

_MOST_ROWS = 20


def trade_offs(source: Source) -> Iterator[Block]:
    """Pictures of the front and a table of it; nothing where a study has one objective."""
    found = source.result.front
    if not found:
        return
    names = list(found[0].values)
    for place, other in enumerate(names[1:]):
        pair = f"{objective(names[0])} and {objective(other)}"
        caption = (
            f"Complete trials by their {pair} on validation rows, of one seed. The {len(found)} of the front are coloured: "
            f"to each, no other trial is at least equal in {_every(names)} and better in one. The winner's trial is large. "
            "Values off the chart lie on its edge."
        )
        table = _table(found, names) if place == 0 else None
        yield Figure(_drawing(source, found, names[0], other, stairs=len(names) == 2), caption, table, wide=True)
    rows = [row for each in source.result.settings if (row := _trained_again(each, names))]
    if rows:
        first, *others = map(objective, names)
        yield Text(
            "A front is made of lucky trials, as the best value of a search is. Over "
            f"{source.result.seeds} new seeds, on the same validation rows, settings come to this:"
        )
        yield Table(("trained again", f"validation {first}", *others, f"test {first}"), rows)


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
    head = ("trial of the front", *(objective(name) for name in names), "regularizers")
    rows = [
        (
            f"trial {each.trial}",
            *(number(each.values[name]) for name in names),
            ", ".join(f"{name} {said(each.recipe[name])}" for name in each.regularizers) or "none",
        )
        for each in found[:_MOST_ROWS]
    ]
    return Table(head, rows)


def _trained_again(setting: Setting, names: Sequence[Further]) -> tuple[str, ...] | None:
    """What a setting came to over seeds; None where it was not trained."""
    if setting.valid is None or setting.test is None or not setting.also:
        return None
    spreads = [setting.valid, *(setting.also[name] for name in names[1:])]
    return (setting.name, *map(over_seeds, spreads), number(setting.test.mean))

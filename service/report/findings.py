"""Findings that every study has, whoever ran it: what the ablation shows, and how the search went."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from service.report import charts_scores, charts_search
from service.report.axes import number
from service.report.content import Block, Figure, Table, over_seeds
from service.result import Ablation
from service.store.records import TrialRecord

_BEST_TRIALS = 10


def ablation(found: Sequence[Ablation], metric: str) -> Figure:
    """What is lost without each of the winner's regularizers."""
    rows = sorted(found, key=lambda row: -row.change)
    drawing = charts_scores.changes(
        [(row.without, row.change, row.low, row.high) for row in rows],
        f"validation {metric}, worse by",
        "What is lost without each of the winner's regularizers",
    )
    table = Table(
        ("switched off", f"validation {metric}", "worse by", "95 % interval"),
        [
            (
                row.without,
                over_seeds(row.valid),
                number(row.change),
                f"{number(row.low)} to {number(row.high)}" if math.isfinite(row.low) else "–",
            )
            for row in rows
        ],
    )
    caption = (
        "The winner trained again over the same seeds with one regularizer switched off at a time. A bar to the right shows "
        "how much this regularizer helped. If its whiskers (95 % over seeds) include zero, this may be chance."
    )
    return Figure(drawing, caption, table, wide=True)


def search(trials: Sequence[TrialRecord], metric: str, winner: int | None, *, minimize: bool) -> Iterator[Block]:
    """Values of trials by number, and by their settings; nothing for fewer than two."""
    valued = [trial for trial in trials if trial.value is not None]
    if len(valued) < 2:
        return
    counts = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "fail")}
    caption = (
        f"{counts['complete']} complete trials (dots), {counts['pruned']} pruned (rings, at their best value), "
        f"{counts['fail']} failed. The line is the best complete value so far; the large dot is the winner's trial. Values "
        "outside the chart are drawn on its edge."
    )
    drawing = charts_search.history(trials, metric, minimize=minimize, winner=winner)
    yield Figure(drawing, caption, _best_trials(trials, metric, minimize=minimize))
    lines = charts_search.parallel(trials, metric, minimize=minimize, winner=winner)
    if lines is not None:
        caption = (
            "Each line is a complete trial, through its settings down to its value; the best tenth is coloured, and the "
            "winner's line is thick. Where coloured lines converge, good trials agree; where they spread, the setting did "
            "not matter."
        )
        yield Figure(lines, caption)


def _best_trials(trials: Sequence[TrialRecord], metric: str, *, minimize: bool) -> Table:
    sign = 1.0 if minimize else -1.0
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    best = sorted(complete, key=lambda trial: sign * (trial.value or 0.0))[:_BEST_TRIALS]
    rows = [
        (
            f"trial {trial.number}",
            number(trial.value),
            ", ".join(f"{name} {_short(value)}" for name, value in charts_search.settings_of(trial.params).items()),
        )
        for trial in best
    ]
    return Table(("best trials", f"validation {metric}", "settings"), rows)


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)

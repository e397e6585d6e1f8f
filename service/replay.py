"""Comparison of a study with its replay, trial by trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.store.records import FinishedTrial

MOST_DIFFERENCES = 100
_COMPARED = ("params", "state", "value", "also", "epochs")


@dataclass(frozen=True)
class Difference:
    """One difference: ``field`` of trial ``number`` in the first study and in the replay; None if the trial is missing."""

    number: int
    field: str
    was: Any
    now: Any


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        same: Whether all trials have exactly the same parameters, state, values and epochs.
        same_order: Whether they were told in the same order.
        trials: Number of trials of the first study.
        differing: Number of trials with a difference.
        largest_difference: Of the values of the first objective, relative to the first study.
        differences: The first `MOST_DIFFERENCES` of them.
    """

    same: bool
    same_order: bool
    trials: int
    differing: int
    largest_difference: float
    differences: tuple[Difference, ...]


def compare(first: Sequence[FinishedTrial], again: Sequence[FinishedTrial]) -> Comparison:
    """Compare the finished trials of two studies, each in the order in which they were told."""
    was, now = ({trial.number: trial for trial in trials} for trials in (first, again))
    found = [each for number in sorted(was.keys() | now.keys()) for each in _differences(number, was, now)]
    return Comparison(
        same=not found,
        same_order=[trial.number for trial in first] == [trial.number for trial in again],
        trials=len(was),
        differing=len({each.number for each in found}),
        largest_difference=max((_relative(was[number], now[number]) for number in was.keys() & now.keys()), default=0.0),
        differences=tuple(found[:MOST_DIFFERENCES]),
    )


def _differences(number: int, was: Mapping[int, FinishedTrial], now: Mapping[int, FinishedTrial]) -> list[Difference]:
    if number not in was or number not in now:
        states = [trials[number].state if number in trials else None for trials in (was, now)]
        return [Difference(number, "trial", *states)]
    pairs = [(name, getattr(was[number], name), getattr(now[number], name)) for name in _COMPARED]
    return [Difference(number, name, before, after) for name, before, after in pairs if before != after]


def _relative(was: FinishedTrial, now: FinishedTrial) -> float:
    if was.value is None or now.value is None:
        return 0.0
    return abs(now.value - was.value) / max(abs(was.value), 1e-12)

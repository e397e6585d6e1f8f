"""What a search knows before its first trial: the trials of earlier studies, by their ranks within each of these.

Values of different data can't be compared, but which tenth of a study's trials was the best can. So each earlier study gives
its own good and bad trials to the densities of TPE, as the oldest ones, whose weight falls as the study's own trials come.
Of its first trials every second one is drawn at random instead, which shows what the earlier ones gained.

Reference: Feurer, Letham and Bakshy, "Scalable meta-learning for Bayesian optimization using ranking-weighted Gaussian
process ensembles" (2018), for ranks as what carries over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from service.search.parameters import whole
from service.spec.searchable import Searchable

COMPARED = 8
"""First trials drawn by earlier ones, and as many at random in turn with them."""
MOST_GOOD = 25
MOST_BAD = 200
"""Trials that an earlier study gives."""


@dataclass(frozen=True)
class Past:
    """A finished trial of an earlier study. ``value`` is to be minimized."""

    params: Mapping[str, Any]
    complete: bool
    value: float
    epochs: int


@dataclass(frozen=True)
class Evidence:
    """The parameters of good and of bad trials."""

    good: tuple[Mapping[str, Any], ...] = ()
    bad: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, spec: Searchable, studies: Iterable[Sequence[Past]]) -> Evidence:
        """What earlier ``studies`` tell a study; values that it can't take are left out."""
        kinds = whole(spec)
        good: list[Mapping[str, Any]] = []
        bad: list[Mapping[str, Any]] = []
        for trials in studies:
            ranked = sorted((each for each in trials if math.isfinite(each.value)), key=_rank)
            best = min(MOST_GOOD, math.ceil(0.1 * len(ranked)))
            rest = ranked[best:]
            good += [_known(each.params, kinds) for each in ranked[:best]]
            bad += [_known(each.params, kinds) for each in rest[:: -(-len(rest) // MOST_BAD) or 1]]
        return cls(tuple(good), tuple(bad))

    def __len__(self) -> int:
        return len(self.good) + len(self.bad)


def _rank(trial: Past) -> tuple[bool, int, float]:
    """Complete trials by value, then pruned ones, those that were pruned last first."""
    return (False, 0, trial.value) if trial.complete else (True, -trial.epochs, trial.value)


def _known(params: Mapping[str, Any], kinds: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name in kinds and _possible(kinds[name], value)}


def _possible(kind: BaseDistribution, value: Any) -> bool:
    match kind:
        case CategoricalDistribution(choices=choices):
            return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)
        case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and low <= value <= high
        case _:
            raise AssertionError(f"no setting has a {type(kind).__name__}")


def drawn_at_random(spec: Searchable, number: int) -> bool | None:
    """Whether a trial is one of the first that are drawn at random for comparison; None if it is not compared at all.

    Enqueued trials are not.
    """
    index = number - len(spec.enqueue)
    return index % 2 == 1 if spec.search_from and 0 <= index < 2 * COMPARED else None

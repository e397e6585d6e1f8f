"""Settings that can't be distinguished on validation data tie; the simplest of them is recommended.

Two settings tie when the 95 % interval of their paired difference, over validation rows and seeds, includes zero. The
simpler one has fewer regularizers, or as many and fewer weights, in the spirit of the one-standard-error rule of Breiman et
al., "Classification and Regression Trees" (1984).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workers.answer.candidates import Candidate
from workers.answer.intervals import difference
from workers.answer.networks import Measured


def ties(
    winner: Candidate, others: Sequence[Candidate], measured: Mapping[Candidate, Measured], sign: float
) -> list[Candidate]:
    """Those of ``others`` that can't be distinguished from the winner."""
    return [other for other in others if other is not winner and _tied(winner, other, measured, sign)]


def recommended(winner: Candidate, tied: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The simplest of the winner and the candidates that tie with it, and the reason."""
    if not tied:
        return winner, "no other finalist ties with the winner"
    simplest = min((winner, *tied), key=complexity)
    if simplest is winner:
        return winner, f"{_count(len(tied))} with the winner, and none of them is simpler"
    regularizers, weights = complexity(simplest)
    what = f"{regularizers} regularizer{'' if regularizers == 1 else 's'} instead of {complexity(winner)[0]}"
    if regularizers == complexity(winner)[0]:
        what = f"as many regularizers and fewer weights ({weights:,})"
    return simplest, f"it can't be distinguished from the winner on validation rows and is simpler: {what}"


def complexity(candidate: Candidate) -> tuple[int, int]:
    """The number of regularizers that are on, and the number of weights."""
    first = next(iter(candidate.weights.values()))
    return len(candidate.recipe.regularizers()), sum(value.numel() for value in first[0].values())


def _tied(winner: Candidate, other: Candidate, measured: Mapping[Candidate, Measured], sign: float) -> bool:
    first, second = measured[winner], measured[other]
    places, other_places = first.common(second)
    paired = difference(first.valid.only(places), second.valid.only(other_places), sign) if len(places) > 1 else None
    return paired is not None and not paired.excludes_zero


def _count(n: int) -> str:
    return "1 finalist ties" if n == 1 else f"{n} finalists tie"

"""Settings that can't be told apart on validation data tie; the simplest of them is recommended.

Two settings tie when the 95 % interval of their paired difference, over validation rows and seeds, holds zero. Simpler is
what has fewer regularizers, then fewer weights: in the spirit of the one-standard-error rule of Breiman et al.,
"Classification and Regression Trees" (1984).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workers.answer.candidates import Candidate
from workers.answer.intervals import difference
from workers.answer.networks import Measured


def ties(
    winner: Candidate, others: Sequence[Candidate], measured: Mapping[Candidate, Measured], sign: float
) -> list[Candidate]:
    """Those of ``others`` that can't be told apart from the winner."""
    return [other for other in others if other is not winner and _tied(winner, other, measured, sign)]


def recommended(winner: Candidate, tied: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The simplest of the winner and what ties with it, and why."""
    if not tied:
        return winner, "no other finalist ties with the winner"
    simplest = min((winner, *tied), key=complexity)
    if simplest is winner:
        return winner, f"{_count(len(tied))} with the winner, and none of them is simpler"
    regularizers, weights = complexity(simplest)
    what = f"{regularizers} regularizers instead of {complexity(winner)[0]}"
    if regularizers == complexity(winner)[0]:
        what = f"as many regularizers and fewer weights ({weights:,})"
    return simplest, f"it can't be told apart from the winner on validation data, and is simpler: {what}"


def complexity(candidate: Candidate) -> tuple[int, int]:
    """Number of regularizers that are on, and of weights."""
    first = next(iter(candidate.weights.values()))
    return len(candidate.recipe.regularizers()), sum(value.numel() for value in first[0].values())


def _tied(winner: Candidate, other: Candidate, measured: Mapping[Candidate, Measured], sign: float) -> bool:
    ours, theirs = measured[winner], measured[other]
    here, there = ours.common(theirs)
    return len(here) > 1 and not difference(ours.valid.only(here), theirs.valid.only(there), sign).excludes_zero


def _count(n: int) -> str:
    return "1 finalist ties" if n == 1 else f"{n} finalists tie"

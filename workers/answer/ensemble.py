"""A greedy ensemble of networks that are already trained: better than one network, without further training.

Shapes: `n` networks, `r` rows, `o` outputs. Probabilities of classes or labels are averaged, or standardized predictions.
Reference: Caruana et al., "Ensemble selection from libraries of models", ICML (2004): forward selection with replacement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.spec import Task
from workers.answer.candidates import Candidate
from workers.answer.networks import Gauge, Measured, ScoredRows

STEPS = 25
_BATCH = 1 << 24
"""Probabilities that are averaged at once (64 MiB)."""


@dataclass(frozen=True)
class Ensemble:
    """``members`` are (candidate, index of its seed, share); ``valid`` is the score it was chosen by."""

    members: tuple[tuple[Candidate, int, float], ...]
    valid: float

    def outputs(self, task: Task, out: Mapping[Candidate, Tensor]) -> Tensor:
        """(1, r, o) outputs, from the outputs (s, r, o) of every member's candidate."""
        parts = [
            share * predictions(task, out[candidate][list(candidate.runs).index(index)])
            for candidate, index, share in self.members
        ]
        return as_output(task, torch.stack(parts).sum(0))[None]


def build(
    library: Sequence[Candidate], measured: Mapping[Candidate, Measured], gauge: Gauge, rows: ScoredRows, sign: float
) -> Ensemble:
    """The greedy ensemble of all networks of the candidates, chosen on validation rows of the first fold."""
    networks = [(candidate, index) for candidate in library for index in candidate.runs]
    predicted = predictions(gauge.task, torch.cat([measured[candidate].valid_out for candidate in library]))
    members, best = select(predicted, lambda mean: gauge.exact(as_output(gauge.task, mean), rows), sign)
    total = members.total()
    return Ensemble(tuple((*networks[place], times / total) for place, times in members.most_common()), sign * best)


def predictions(task: Task, out: Tensor) -> Tensor:
    """The predictions to average, from outputs (…, r, o): probabilities, or standardized numbers."""
    match task:
        case "classification":
            return out.softmax(dim=-1)
        case "multilabel":
            return out.sigmoid()
        case "regression":
            return out
        case _:
            assert_never(task)


def as_output(task: Task, mean: Tensor) -> Tensor:
    """Averaged predictions as outputs that metrics take: logarithms of the probabilities of classes, logits of labels'."""
    match task:
        case "classification":
            return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        case "multilabel":
            return torch.logit(mean, torch.finfo(mean.dtype).eps)
        case "regression":
            return mean
        case _:
            assert_never(task)


def select(library: Tensor, score: Callable[[Tensor], NDArray[np.float64]], sign: float) -> tuple[Counter[int], float]:
    """Which networks are in the ensemble and how often, and its score times ``sign``.

    Starting from an empty ensemble, the network that makes its score best is added, again and again; the best ensemble on
    the way is kept, of equal ones the smallest.

    Args:
        library: (n, r, o) `predictions` on validation rows.
        score: Turns predictions (n, r, o) into n scores.
        sign: +1 where a lower score is better.
    """
    chosen: list[int] = []
    total = torch.zeros_like(library[0])
    best, best_size = np.inf, 0
    at_once = max(1, _BATCH // total.numel())
    for step in range(STEPS):
        parts = torch.split(library, at_once)
        scores = sign * np.concatenate([score((part + total) / (step + 1)) for part in parts])
        place = int(np.argmin(scores))
        chosen.append(place)
        total = total + library[place]
        if scores[place] < best:
            best, best_size = float(scores[place]), step + 1
    return Counter(chosen[:best_size]), best

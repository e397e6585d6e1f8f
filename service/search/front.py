"""Trials in the order of several objectives: fronts, one behind the other. Pure.

A trial dominates another that it is no worse than in every objective, and better than in one. The front are the trials
that no other one dominates; the next front are those of the others that are dominated by the first front only; and so on.

Shapes: `n` trials, `m` objectives. Reference: non-dominated sorting, Deb et al., "A fast and elitist multiobjective genetic
algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6 (2002).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection

from service.optuna_private import non_domination_rank
from service.spec import StudySpec, sign_of

MOST_SORTED = 1000
"""Fronts are told apart until they hold so many trials; the others share the last one."""


def ranks(spec: StudySpec, values: Sequence[Sequence[float]]) -> NDArray[np.int64]:
    """(n,) the front of every trial, 0 for the first; with one objective, its place among all distinct values.

    Args:
        spec: A study's spec, resolved.
        values: (n, m) of every trial, in the order of the study's objectives.
    """
    signs = [sign_of(name) for name in spec.objectives]
    signed = np.asarray(values, dtype=np.float64).reshape(-1, len(signs)) * signs
    return np.asarray(non_domination_rank(signed, n_below=MOST_SORTED), dtype=np.int64)


def only_direction(study: Study) -> StudyDirection:
    """The direction of a study of one objective.

    Raises:
        ValueError: It has several.
    """
    if len(study.directions) > 1:
        raise ValueError(f"this sampler is for studies of one objective; this one has {len(study.directions)}")
    return study.direction

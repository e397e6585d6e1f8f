"""Sorting of trials by several objectives into fronts. Pure.

A trial dominates another if it is no worse in every objective and better in at least one. The first front contains the
trials that no other trial dominates; the next, those that only trials of the first front dominate; and so on.

Shapes: `n` trials, `m` objectives. Reference: non-dominated sorting, Deb et al., "A fast and elitist multiobjective genetic
algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6 (2002).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection

from service.optuna_private import non_domination_rank
from service.spec.searchable import Searchable

MOST_SORTED = 1000
"""Fronts are distinguished until they contain this many trials; the remaining trials share the last front."""


def ranks(spec: Searchable, values: Sequence[Sequence[float]]) -> NDArray[np.int64]:
    """The front of each trial, 0 for the first; with one objective, its rank among the distinct values.

    Args:
        spec: The study's spec, resolved.
        values: (n, m) in the order of the study's objectives.

    Returns:
        (n,) ranks.
    """
    signs = [1.0 if direction == "minimize" else -1.0 for direction in spec.objectives.values()]
    signed = np.asarray(values, dtype=np.float64).reshape(-1, len(signs)) * signs
    return np.asarray(non_domination_rank(signed, n_below=MOST_SORTED), dtype=np.int64)


def only_direction(study: Study) -> StudyDirection:
    """The direction of a study of one objective.

    Raises:
        ValueError: It has several objectives.
    """
    if len(study.directions) > 1:
        raise ValueError(f"this sampler supports one objective; the study has {len(study.directions)}")
    return study.direction

"""Seeds of everything random in a study, derived from the study's seed. NumPy only.

The path to a seed names its use: (0, lease) a sampler, (1, trial, fold) a lane of the search, (2, index, fold) a lane of a
setting that is trained again at the end. An index gives every setting the same seeds, so that differences are paired.
"""

from __future__ import annotations

import numpy as np


def sampler_seed(study_seed: int, lease: int) -> int:
    """The seed of the sampler under a study's ``lease``-th lease."""
    return _at(study_seed, 0, lease)


def trial_seeds(study_seed: int, trial: int, folds: int) -> tuple[tuple[int, int], ...]:
    """(fold, seed) of every lane of a trial, by its number."""
    return tuple((fold, _at(study_seed, 1, trial, fold)) for fold in range(folds))


def final_seeds(study_seed: int, index: int, folds: int) -> tuple[tuple[int, int], ...]:
    """(fold, seed) of every lane of a setting that is trained again with the ``index``-th seed."""
    return tuple((fold, _at(study_seed, 2, index, fold)) for fold in range(folds))


def _at(study_seed: int, *path: int) -> int:
    return int(np.random.SeedSequence([study_seed, *path]).generate_state(1)[0]) & 0x7FFFFFFF

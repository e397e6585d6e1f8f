"""Seeds of all that a study does at random, from the study's own seed. NumPy only.

The path to a seed names what it is for: (0, lease) a sampler, (1, trial, fold) a lane of the search, (2, index, fold) a
lane of what is trained again at the end. An index means the same seeds for every setting, so that differences are paired.
"""

from __future__ import annotations

import numpy as np


def sampler_seed(study_seed: int, lease: int) -> int:
    """Of the sampler of a study's ``lease``-th lease."""
    return _at(study_seed, 0, lease)


def trial_seeds(study_seed: int, trial: int, folds: int) -> tuple[tuple[int, int], ...]:
    """(fold, seed) of every lane of a trial, by its number."""
    return tuple((fold, _at(study_seed, 1, trial, fold)) for fold in range(folds))


def final_seeds(study_seed: int, index: int, folds: int) -> tuple[tuple[int, int], ...]:
    """(fold, seed) of every lane of a setting that is trained again with the ``index``-th seed."""
    return tuple((fold, _at(study_seed, 2, index, fold)) for fold in range(folds))


def _at(study_seed: int, *path: int) -> int:
    return int(np.random.SeedSequence([study_seed, *path]).generate_state(1)[0]) & 0x7FFFFFFF

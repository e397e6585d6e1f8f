"""The locked test part. This is the only module that reads test rows, and only finalizing calls it, once, on record.

Searching never does: `workers.searching.session` does not import it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.data.prepare import Fold, features, targets
from workers.data.split import Split
from workers.data.table import RawTable


def test_part(table: RawTable, split: Split, fold: Fold) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Features (rows, d) and targets (rows,) of the test rows, preprocessed as ``fold`` was."""
    return features(table, split.test, fold.preprocessor), targets(table, split.test, fold.target)

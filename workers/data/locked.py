"""The locked test part. This is the only module that reads test rows, and only finalizing calls it, once, on record.

Searching never does: `workers.searching.session` does not import it. Only whether a score is defined on the test part is
looked up before, in its targets alone.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from workers.data.prepare import Features, Fold, features, targets
from workers.data.split import Split
from workers.data.table import RawTable


def test_part(table: RawTable, split: Split, fold: Fold) -> tuple[Features, NDArray[Any]]:
    """Features (rows, d) and targets (rows,) of the test rows, preprocessed as ``fold`` was."""
    return features(table, split.test, fold.preprocessor), targets(table, split.test, fold.target)


def test_targets(table: RawTable, split: Split) -> NDArray[Any]:
    """Targets (rows,) of the test rows in their own unit, to see whether a metric is defined on them."""
    return table.target[split.test]

"""Class weights that compensate for rare classes.

Reference: King and Zeng, "Logistic Regression in Rare Events Data", Political Analysis 9 (2001); scikit-learn's "balanced".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def class_weights(target: NDArray[Any], classes: int) -> NDArray[np.float32]:
    """(classes,) weights n / (present classes · rows of the class), which average to 1 over the rows.

    A class without training rows gets the weight 1: it takes no part in training, but its weight must be finite.

    Args:
        target: (n,) class indices of the training rows.
        classes: Number of classes, including those without training rows.
    """
    counts = np.bincount(target, minlength=classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(target) / (present * np.maximum(counts, 1)), 1.0).astype(np.float32)

"""Data for a report's charts of trained networks, of bounded size: confusion, calibration, predicted and true values.

Shapes: `r` test rows, `c` classes. Independent of studies and storage.
Reference: Guo et al., "On Calibration of Modern Neural Networks" (2017), expected calibration error with equal bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from torch import Tensor

from service.result import Calibration, CalibrationBin, Confusion, Predictions
from service.spec import Task
from workers.data import TargetScale
from workers.scoring.metrics import confusion

BINS = 10
MOST_PAIRS = 500
MOST_CLASSES = 30


def test_pictures(task: Task, out: Tensor, target: Tensor, labels: Sequence[str], scale: TargetScale) -> Predictions:
    """One network's predictions of the test rows: confusion and calibration for classes, pairs for numbers.

    Of several labels the calibration of all of them together; of several numbers pairs of all of them, standardized.

    Args:
        task: The study's task.
        out: (r, o) logits, or standardized predictions.
        target: (r,) class indices, or standardized targets; (r, t) labels, or several standardized targets.
        labels: Names of the classes.
        scale: Mean and deviation of the regression target.
    """
    match task:
        case "regression" if target.ndim == 2:
            return Predictions(pairs=_pairs(target.flatten().numpy(), out.flatten().numpy()))
        case "regression":
            return Predictions(pairs=_pairs(scale.restore(target.numpy()), scale.restore(out[:, 0].numpy())))
        case "multilabel":
            two = torch.stack([torch.zeros_like(out), out], 2)
            return Predictions(calibration=calibration(two.flatten(0, 1), target.flatten()))
        case "classification" if len(labels) > MOST_CLASSES:
            return Predictions(calibration=calibration(out, target))
        case "classification":
            counts = confusion(out.argmax(1)[None], target[None], torch.ones(1, len(target)), len(labels))[0]
            rows = tuple(tuple(row) for row in counts.to(torch.int64).tolist())
            table = Confusion(labels=tuple(labels), counts=rows)
            return Predictions(calibration=calibration(out, target), confusion=table)
        case _:
            assert_never(task)


def calibration(out: Tensor, target: Tensor) -> Calibration:
    """Accuracy by confidence in ten bins of equal width, from logits (r, c) and class indices (r,)."""
    confidence, predicted = (value.numpy() for value in out.double().softmax(1).max(1))
    correct = predicted == target.numpy()
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=BINS)
    # Of the same bins, closed at their upper end: scikit-learn omits the empty ones and returns no counts.
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence), minlength=BINS)
    filled = np.flatnonzero(counts)
    bins = [CalibrationBin(count=count, confidence=None, accuracy=None) for count in counts.tolist()]
    for place, c, a in zip(filled.tolist(), mean_confidence.tolist(), accuracy.tolist(), strict=True):
        bins[place] = CalibrationBin(count=bins[place].count, confidence=c, accuracy=a)
    error = float(np.average(np.abs(mean_confidence - accuracy), weights=counts[filled]))
    return Calibration(bins=tuple(bins), expected_error=error)


def _pairs(true: NDArray[np.float64], predicted: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """(true, predicted) of at most 500 rows, evenly spaced in the order of the true values."""
    order = np.argsort(true, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_PAIRS)).round().astype(int))]
    return tuple((float(true[row]), float(predicted[row])) for row in chosen)

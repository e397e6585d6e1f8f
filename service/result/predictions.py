"""Predictions of trained networks on the locked test rows: confusion, ROC and precision-recall curves, calibration, pairs.

Reference: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006); Guo et al., "On Calibration of
Modern Neural Networks" (2017).
"""

from __future__ import annotations

from pydantic import Field

from service.result.base import Part


class Confusion(Part):
    """Test rows by true and predicted class."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int | float, ...], ...] = Field(
        description="counts[i][j]: rows of class i that were predicted as class j; means, where there are several seeds."
    )


class OneVersusRest(Part):
    """A curve of one class against the rest on a fixed grid: the mean, the lowest and the highest over seeds."""

    label: str
    x: tuple[float, ...] = Field(description="False-positive rate (ROC) or recall (precision-recall).")
    y: tuple[float, ...] = Field(description="True-positive rate (ROC) or precision (precision-recall).")
    low: tuple[float, ...]
    high: tuple[float, ...]
    area: float = Field(description="ROC AUC or average precision, mean over seeds.")


class Discrimination(Part):
    """How well the networks of a setting, one per seed, tell the classes of the test rows apart."""

    confusion: Confusion
    roc: tuple[OneVersusRest, ...] = Field(description="By class; with two classes, the positive one only.")
    pr: tuple[OneVersusRest, ...] = Field(description="Precision-recall curves of the same classes.")


class CalibrationBin(Part):
    """Test rows that were predicted with about the same confidence, the probability of the predicted class."""

    count: int = Field(description="Number of rows.")
    confidence: float | None = Field(description="Mean confidence; null without rows.")
    accuracy: float | None = Field(description="Share of correct predictions; null without rows.")


class Calibration(Part):
    """Accuracy by confidence, in bins of equal width."""

    bins: tuple[CalibrationBin, ...]
    expected_error: float = Field(description="Expected calibration error.")


class Predictions(Part):
    """Test predictions of the network handed out: ``pairs`` of a regression, the other parts of a classification."""

    pairs: tuple[tuple[float, float], ...] | None = Field(
        None,
        description="[true, predicted] in the target's unit, of at most 500 rows, ordered by the true value; of several "
        "targets at most 500 values of all of them, standardized.",
    )
    calibration: Calibration | None = None
    confusion: Confusion | None = Field(None, description="Null with more than 30 classes.")


class Pictures(Part):
    """Data for charts of the network handed out."""

    test: Predictions

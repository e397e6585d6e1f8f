"""What trained networks predict on the locked test rows: confusion, curves, calibration, predicted by true values.

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
        description="counts[i][j]: rows of class i that were taken for class j; means, where they are of several seeds."
    )


class OneVersusRest(Part):
    """A curve of one class against the rest at fixed places: the mean over seeds, with the lowest and highest seed."""

    label: str
    x: tuple[float, ...] = Field(description="False-positive rate (ROC) or recall (precision-recall).")
    y: tuple[float, ...] = Field(description="True-positive rate (ROC) or precision (precision-recall).")
    low: tuple[float, ...]
    high: tuple[float, ...]
    area: float = Field(description="Mean over seeds of the ROC AUC or the average precision.")


class Discrimination(Part):
    """How well the networks of a setting, one per seed, tell the classes of the test rows apart."""

    confusion: Confusion
    roc: tuple[OneVersusRest, ...] = Field(description="By class; of two classes the positive one only.")
    pr: tuple[OneVersusRest, ...] = Field(description="Precision-recall curves of the same classes.")


class CalibrationBin(Part):
    """Test rows that were predicted with about the same confidence, the probability of the predicted class."""

    count: int = Field(description="Rows.")
    confidence: float | None = Field(description="Mean; null without rows.")
    accuracy: float | None = Field(description="Share of right predictions; null without rows.")


class Calibration(Part):
    """How often predictions are right, by how sure the network was: equal bins of its confidence."""

    bins: tuple[CalibrationBin, ...]
    expected_error: float = Field(description="Expected calibration error.")


class Predictions(Part):
    """The test rows as the network sees them that is handed out: pairs of a regression, the rest of a classification."""

    pairs: tuple[tuple[float, float], ...] | None = Field(
        None, description="[true, predicted] in the target's unit, of at most 500 rows in order of the true values."
    )
    calibration: Calibration | None = None
    confusion: Confusion | None = Field(None, description="Null with more than 30 classes.")


class Pictures(Part):
    """What is drawn of the network that is handed out."""

    test: Predictions

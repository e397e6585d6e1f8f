"""The metrics of studies, by task, with their directions.

With two classes `precision`, `recall`, `specificity`, `f1`, `roc_auc` and `pr_auc` are those of the *positive* class: the
second of the sorted classes, or the one that `data.positive` names. With more classes each is the unweighted mean over
the classes, one versus the rest. `pinball` is the quantile loss of the study's `quantile` q, the mean of q·r where the
residual r = y − prediction is positive and of (q − 1)·r where it is not (Koenker and Bassett 1978), in the target's unit.

With several labels `log_loss` is the mean of the labels' binary cross-entropies; `accuracy` is the share of rows with all
labels right, `hamming_accuracy` that of labels; `f1_micro` is of all labels together. The others are unweighted means over
the labels, each of its second value in sorted order. With several numbers each metric is the unweighted mean over the
targets, rmse, mae and pinball in standard deviations of the training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Task = Literal["classification", "multilabel", "regression"]
ClassificationMetric = Literal[
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "f1_macro",
    "f1_micro",
    "roc_auc",
    "pr_auc",
    "log_loss",
]
MultilabelMetric = Literal[
    "log_loss",
    "accuracy",
    "hamming_accuracy",
    "precision",
    "recall",
    "f1_macro",
    "f1_micro",
    "roc_auc",
    "pr_auc",
]
RegressionMetric = Literal["rmse", "mae", "r2", "pinball"]
Metric = Literal[ClassificationMetric, MultilabelMetric, RegressionMetric]
Monitor = Literal["metric", "loss", Metric]
"""What early stopping may monitor: the objective, the validation loss, or any metric."""
Further = Literal[Metric, "gap"]
"""Further objectives of a study; `gap` is the amount by which its metric is worse on validation than on training rows."""
GAP = "gap"
Direction = Literal["minimize", "maximize"]
CLASSIFICATION_METRICS: tuple[str, ...] = get_args(ClassificationMetric)
MULTILABEL_METRICS: tuple[str, ...] = get_args(MultilabelMetric)
REGRESSION_METRICS: tuple[str, ...] = get_args(RegressionMetric)
METRICS: Mapping[Task, tuple[str, ...]] = {
    "classification": CLASSIFICATION_METRICS,
    "multilabel": MULTILABEL_METRICS,
    "regression": REGRESSION_METRICS,
}
"""By task, the default first."""
RANKING_METRICS = ("roc_auc", "pr_auc")
"""Areas under curves: they require sorting all predictions, and are computed only if a study uses them."""
PINBALL = "pinball"
"""It has a level, `StudySpec.quantile`, and is computed only in studies that have one."""
PROBABILITY_METRICS = ("log_loss", *RANKING_METRICS)
"""They judge the predicted probabilities, not only the class."""
LOWER_IS_BETTER = frozenset({"loss", "log_loss", "rmse", "mae", PINBALL, GAP})


def metrics_for(task: Task) -> tuple[str, ...]:
    """The metrics of a task, the default first."""
    return METRICS[task]


def sign_of(name: str) -> float:
    """+1 if lower values are better, −1 if higher ones are: the product of this and the value is to be minimized."""
    return 1.0 if name in LOWER_IS_BETTER else -1.0


def direction_of(name: str) -> Direction:
    """Optuna's direction of a metric."""
    return "minimize" if name in LOWER_IS_BETTER else "maximize"

"""Metrics of several targets, of many lanes at once, against scikit-learn's of one lane, with weights of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from service.spec.metrics import MULTILABEL_METRICS, RANKING_METRICS, REGRESSION_METRICS
from workers.scoring.metrics import evaluate, names

LANES, ROWS, TARGETS = 4, 90, 5


def lanes(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs (k, m, t), numbers (k, m, t) near them, and weights of rows, of which some are 0."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(LANES, ROWS, TARGETS)) * [1.0, 2.0, 0.5, 1.0, 3.0] + [0.0, 1.0, 0.4, -0.8, 0.0]
    out = truth + rng.normal(size=truth.shape)
    return out.astype(np.float32), truth, rng.integers(0, 4, size=(LANES, ROWS)).astype(np.float32)


def found(task: str, out: np.ndarray, target: Any, weights: np.ndarray, wanted: tuple[str, ...], **how: Any) -> np.ndarray:
    y = torch.from_numpy(target if task == "multilabel" else target.astype(np.float32))
    values = evaluate(task, torch.from_numpy(out), y, torch.from_numpy(weights), torch.ones(LANES), wanted=wanted, **how)
    return np.asarray(values.numpy())


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_labels_are_scikit_learns(seed: int) -> None:
    out, truth, weights = lanes(seed)
    labels = (truth > 0.5).astype(np.int64)
    labels[:, :, 2] *= out[:, :, 2] > 0.9
    ours = found("multilabel", out, labels, weights, RANKING_METRICS)
    for lane in range(LANES):
        y, z, by = labels[lane], out[lane].astype(np.float64), weights[lane]
        p, guess = 1.0 / (1.0 + np.exp(-z)), (out[lane] > 0).astype(int)
        macro: dict[str, Any] = {"average": "macro", "sample_weight": by, "zero_division": 0.0}
        each = [reference.log_loss(y[:, place], p[:, place], sample_weight=by, labels=[0, 1]) for place in range(TARGETS)]
        theirs = {
            "log_loss": np.mean(each),
            "accuracy": reference.accuracy_score(y, guess, sample_weight=by),
            "hamming_accuracy": 1.0 - reference.hamming_loss(y, guess, sample_weight=by),
            "precision": reference.precision_score(y, guess, **macro),
            "recall": reference.recall_score(y, guess, **macro),
            "f1_macro": reference.f1_score(y, guess, **macro),
            "f1_micro": reference.f1_score(y, guess, **(macro | {"average": "micro"})),
            "roc_auc": reference.roc_auc_score(y, out[lane], average="macro", sample_weight=by),
            "pr_auc": reference.average_precision_score(y, out[lane], average="macro", sample_weight=by),
        }
        assert {"loss", *theirs} == set(names("multilabel", RANKING_METRICS)) == {"loss", *MULTILABEL_METRICS}
        for name, value in (theirs | {"loss": theirs["log_loss"]}).items():
            place = names("multilabel", RANKING_METRICS).index(name)
            assert ours[lane, place] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_numbers_are_scikit_learns(seed: int) -> None:
    out, truth, weights = lanes(seed)
    ours = found("regression", out, truth, weights, ("pinball",), quantile=0.8)
    columns = names("regression", ("pinball",))
    for lane in range(LANES):
        given: tuple[Any, ...] = (truth[lane].astype(np.float32), out[lane])
        how: dict[str, Any] = {"sample_weight": weights[lane], "multioutput": "uniform_average"}
        theirs = {
            "rmse": reference.root_mean_squared_error(*given, **how),
            "mae": reference.mean_absolute_error(*given, **how),
            "r2": reference.r2_score(*given, **how),
            "pinball": reference.mean_pinball_loss(*given, alpha=0.8, **how),
        }
        assert set(theirs) == set(REGRESSION_METRICS)
        for name, value in theirs.items():
            assert ours[lane, columns.index(name)] == pytest.approx(value, rel=1e-4), name


def test_a_label_that_no_row_has_counts_in_f1_and_not_in_areas() -> None:
    out, _, weights = lanes(0)
    labels = np.zeros((LANES, ROWS, TARGETS), dtype=np.int64)
    labels[:, ::2, 0] = 1
    ours = found("multilabel", out, labels, weights, RANKING_METRICS)
    columns = names("multilabel", RANKING_METRICS)
    alone = found("multilabel", out[:, :, :1], labels[:, :, :1], weights, RANKING_METRICS)
    np.testing.assert_allclose(ours[:, columns.index("roc_auc")], alone[:, columns.index("roc_auc")], rtol=1e-6)
    np.testing.assert_allclose(ours[:, columns.index("f1_macro")] * TARGETS, alone[:, columns.index("f1_macro")], rtol=1e-5)

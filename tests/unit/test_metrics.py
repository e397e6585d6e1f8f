"""Metrics of many lanes at once against scikit-learn's of one lane, with row weights, ties, and two classes or more."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from service.spec import CLASSIFICATION_METRICS, RANKING_METRICS, REGRESSION_METRICS
from workers.scoring.metrics import average_precision, class_scores, evaluate, names, roc_auc

LANES, ROWS = 5, 80


def lanes(classes: int, seed: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (k, m, c), targets (k, m), and row weights: padding, single rows, and rows counted several times."""
    rng = np.random.default_rng(seed)
    target = rng.choice(classes, size=(LANES, ROWS), p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    out = rng.normal(size=(LANES, ROWS, classes)) + np.eye(classes)[target]
    if ties:
        out = out.round()
    return out.astype(np.float32), target, rng.integers(0, 4, size=(LANES, ROWS)).astype(np.float32)


def by_scikit_learn(out: np.ndarray, target: np.ndarray, weights: np.ndarray, positive: int) -> dict[str, float]:
    """Every metric of one lane."""
    classes = out.shape[1]
    rows = weights > 0
    out, truth, weights = out[rows], target[rows], weights[rows]
    guess = out.argmax(1)
    log_odds = class_scores(torch.from_numpy(out)).numpy()
    probability = torch.softmax(torch.from_numpy(out.astype(np.float64)), 1).numpy()
    how: dict[str, Any] = {"sample_weight": weights}
    if classes == 2:
        binary = how | {"pos_label": positive, "average": "binary", "zero_division": 0.0}
        score = log_odds[:, positive]
        specificity = reference.recall_score(truth, guess, **(binary | {"pos_label": 1 - positive}))
        areas = (
            reference.roc_auc_score(truth == positive, score, **how),
            reference.average_precision_score(truth == positive, score, **how),
        )
    else:
        binary = how | {"average": "macro", "zero_division": 0.0}
        seen = np.union1d(truth, guess)
        specificity = np.mean(
            [reference.recall_score(truth != label, guess != label, zero_division=0.0, **how) for label in seen]
        )
        present = np.unique(truth)
        each = [
            (
                reference.roc_auc_score(truth == label, log_odds[:, label], **how),
                reference.average_precision_score(truth == label, log_odds[:, label], **how),
            )
            for label in present
        ]
        areas = tuple(np.mean(each, axis=0))
    loss = reference.log_loss(truth, probability, labels=range(classes), **how)
    with warnings.catch_warnings():
        # It warns of predicted classes that do not occur, and leaves them out as we do.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        balanced = reference.balanced_accuracy_score(truth, guess, **how)
    return {
        "loss": loss,
        "accuracy": reference.accuracy_score(truth, guess, **how),
        "balanced_accuracy": balanced,
        "precision": reference.precision_score(truth, guess, **binary),
        "recall": reference.recall_score(truth, guess, **binary),
        "specificity": specificity,
        "f1": reference.f1_score(truth, guess, **binary),
        "f1_macro": reference.f1_score(truth, guess, average="macro", **how),
        "f1_micro": reference.f1_score(truth, guess, average="micro", **how),
        "log_loss": loss,
        "roc_auc": areas[0],
        "pr_auc": areas[1],
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("classes", "positive"), [(2, 1), (2, 0), (4, 1)])
def test_classification_is_scikit_learns(classes: int, positive: int, ties: bool) -> None:
    out, target, weights = lanes(classes, seed=classes + positive, ties=ties)
    given = (torch.from_numpy(out), torch.from_numpy(target), torch.from_numpy(weights), torch.ones(LANES))
    ours = evaluate("classification", *given, wanted=CLASSIFICATION_METRICS, positive=positive)
    columns = names("classification", CLASSIFICATION_METRICS)
    assert {*columns} == {"loss", *CLASSIFICATION_METRICS}
    for lane in range(LANES):
        theirs = by_scikit_learn(out[lane], target[lane], weights[lane], positive)
        for column, name in enumerate(columns):
            assert ours[lane, column].item() == pytest.approx(theirs[name], abs=2e-6), name


def test_a_class_that_does_not_occur_is_left_out() -> None:
    out, target, weights = lanes(4, seed=9)
    target = target.clip(max=2)
    given = (torch.from_numpy(out), torch.from_numpy(target), torch.from_numpy(weights), torch.ones(LANES))
    ours = evaluate("classification", *given, wanted=CLASSIFICATION_METRICS)
    for lane in range(LANES):
        theirs = by_scikit_learn(out[lane], target[lane], weights[lane], 1)
        for column, name in enumerate(names("classification", CLASSIFICATION_METRICS)):
            assert ours[lane, column].item() == pytest.approx(theirs[name], abs=2e-6), name


def test_regression_is_scikit_learns_in_the_targets_unit() -> None:
    rng = np.random.default_rng(0)
    out, target = rng.normal(size=(2, 3, 40, 1)).astype(np.float32)
    counts = rng.integers(0, 3, size=(3, 40)).astype(np.float32)
    scale = torch.tensor([1.0, 2.0, 5.0])
    ours = evaluate("regression", torch.from_numpy(out), torch.from_numpy(target[..., 0]), torch.from_numpy(counts), scale)
    assert names("regression", REGRESSION_METRICS) == ("loss", *REGRESSION_METRICS)
    for lane in range(3):
        truth, guess, weight = target[lane, :, 0], out[lane, :, 0], counts[lane]
        mse = reference.mean_squared_error(truth, guess, sample_weight=weight)
        theirs = {
            "loss": mse,
            "rmse": mse**0.5 * scale[lane].item(),
            "mae": reference.mean_absolute_error(truth, guess, sample_weight=weight) * scale[lane].item(),
            "r2": reference.r2_score(truth, guess, sample_weight=weight),
        }
        for column, name in enumerate(names("regression")):
            assert ours[lane, column].item() == pytest.approx(theirs[name], rel=1e-4), name


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
def test_the_pinball_loss_is_scikit_learns(level: float) -> None:
    rng = np.random.default_rng(1)
    out, target = rng.normal(size=(2, 3, 40, 1)).astype(np.float32)
    out[:, :5] = target[:, :5]
    counts = rng.integers(0, 3, size=(3, 40)).astype(np.float32)
    scale = torch.tensor([1.0, 2.0, 5.0])
    given = (torch.from_numpy(out), torch.from_numpy(target[..., 0]), torch.from_numpy(counts), scale)
    ours = evaluate("regression", *given, wanted=("pinball",), quantile=level)
    columns = names("regression", ("pinball",))
    assert columns == ("loss", "rmse", "mae", "r2", "pinball")
    usual = evaluate("regression", *given)
    assert torch.equal(ours[:, 1:4], usual[:, 1:])
    for lane in range(3):
        how = {"sample_weight": counts[lane], "alpha": level}
        theirs = reference.mean_pinball_loss(target[lane, :, 0], out[lane, :, 0], **how)
        assert ours[lane, 0].item() == pytest.approx(theirs, rel=1e-4)
        assert ours[lane, 4].item() == pytest.approx(theirs * scale[lane].item(), rel=1e-4)


def test_areas_are_computed_only_where_they_are_wanted() -> None:
    assert not {*names("classification")} & {*RANKING_METRICS}
    assert names("classification", ("pr_auc", "accuracy"))[-1] == "pr_auc"


@pytest.mark.parametrize("classes", [2, 5])
def test_class_scores_are_log_odds(classes: int) -> None:
    out = torch.randn(3, 7, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(class_scores(out), torch.softmax(out, 2).logit())


def test_log_odds_rank_what_saturated_probabilities_cannot() -> None:
    out = torch.tensor([[[0.0, 40.0], [0.0, 41.0], [0.0, 42.0], [0.0, 43.0]]])
    target = torch.tensor([[0, 1, 0, 1]])
    assert len({*torch.softmax(out, 2)[0, :, 1].tolist()}) == 1
    area = evaluate("classification", out, target, torch.ones(1, 4), torch.ones(1), wanted=("roc_auc",))[0, -1]
    assert area.item() == pytest.approx(0.75)


def test_an_area_without_one_of_the_classes_is_undefined() -> None:
    scores, weights = torch.rand(1, 6), torch.ones(1, 6)
    assert roc_auc(scores, torch.ones(1, 6), weights).isnan().all()
    assert roc_auc(scores, torch.zeros(1, 6), weights).isnan().all()
    assert average_precision(scores, torch.zeros(1, 6), weights).isnan().all()
    assert average_precision(scores, torch.ones(1, 6), weights).item() == 1.0


def test_rows_of_no_weight_do_not_count_and_counts_are_repetitions() -> None:
    rng = np.random.default_rng(3)
    scores, hits = rng.normal(size=50).round(1), rng.integers(0, 2, size=50).astype(np.float64)
    counts = rng.integers(0, 5, size=50)
    repeated = np.repeat(np.arange(50), counts)
    for area in (roc_auc, average_precision):
        weighted = area(*(torch.from_numpy(each)[None] for each in (scores, hits, counts.astype(np.float64))))
        written_out = area(
            torch.from_numpy(scores[repeated])[None],
            torch.from_numpy(hits[repeated])[None],
            torch.ones(1, len(repeated), dtype=torch.float64),
        )
        assert weighted.item() == pytest.approx(written_out.item(), abs=1e-12)

"""Thresholds for metrics that the largest probability does not serve best."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

from service.spec import Metric
from workers.answer.thresholds import Judged, tuned

SCORES = {
    "balanced_accuracy": balanced_accuracy_score,
    "f1": lambda truth, found: f1_score(truth, found, pos_label=1),
    "f1_macro": lambda truth, found: f1_score(truth, found, average="macro"),
}


def drawn(rows: int, classes: int, seed: int, networks: int = 1) -> Judged:
    """Rare classes, and outputs that are the log probabilities of the labels with some noise."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(rows, classes, generator=generator) - (6.0 / classes) * torch.arange(classes)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    noise = 0.3 * torch.randn(networks, rows, classes, generator=generator)
    return Judged(logits + noise, labels)


def score(metric: Metric, rows: Judged, biases: np.ndarray) -> float:
    """By scikit-learn, a mean over the networks."""
    return float(np.mean([SCORES[metric](rows.labels, (out.numpy() + biases).argmax(1)) for out in rows.out]))


@pytest.mark.parametrize(
    ("metric", "classes"), [("f1", 2), *((metric, c) for metric in ("balanced_accuracy", "f1_macro") for c in (2, 3))]
)
@pytest.mark.parametrize("networks", [1, 3])
def test_scores_rise_on_rows_that_nothing_was_tuned_on(metric: Metric, classes: int, networks: int) -> None:
    valid, test = [drawn(1500, classes, seed, networks) for seed in (1, 2)], drawn(4000, classes, 3, networks)
    found = tuned(metric, 1, valid, test)
    biases, none = np.array(found.biases), np.zeros(classes)
    assert found.test_before == pytest.approx(score(metric, test, none), abs=1e-5)
    assert found.test_after == pytest.approx(score(metric, test, biases), abs=1e-5)
    assert found.valid_before == pytest.approx(np.mean([score(metric, each, none) for each in valid]), abs=1e-5)
    assert found.valid_after is not None
    assert found.test_after > found.test_before + 0.02
    assert found.valid_after > found.valid_before + 0.02


def test_two_thresholds_are_as_good_as_those_of_a_whole_grid() -> None:
    rows = drawn(3000, 3, 5)
    found = np.array(tuned("balanced_accuracy", 1, [rows], rows).biases)
    steps = np.linspace(-1.0, 5.0, 13)
    best = max(score("balanced_accuracy", rows, np.array([0.0, *each])) for each in product(steps, steps))
    assert score("balanced_accuracy", rows, found) > best - 0.005


def test_few_rows_and_rows_without_a_better_threshold_change_nothing() -> None:
    assert not any(tuned("f1", 1, [drawn(40, 2, 1), drawn(50, 2, 2)], drawn(500, 2, 3)).biases)
    sure = torch.arange(400) % 2
    perfect = Judged(torch.nn.functional.one_hot(sure, 2).float()[None] * 9.0, sure)
    found = tuned("balanced_accuracy", 1, [perfect], perfect)
    assert found.biases == (0.0, 0.0)
    assert found.valid_after == found.valid_before == 1.0


def test_the_positive_class_counts() -> None:
    rows, test = drawn(2000, 2, 1), drawn(2000, 2, 2)
    rare, common = (tuned("f1", positive, [rows], test).test_before for positive in (1, 0))
    assert rare is not None
    assert common is not None
    assert common > rare + 0.2

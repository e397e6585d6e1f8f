"""Scores, jackknife and intervals against closed forms, scipy and simulation with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, root_mean_squared_error

from service.spec.metrics import METRICS
from workers.answer.intervals import BOUNDS, difference, interval, over_seeds
from workers.scoring.scores import Scores, exact, mean_over_folds, score


def logits_of(classes: Any) -> torch.Tensor:
    """Outputs (1, r, 3) that say these classes."""
    return torch.nn.functional.one_hot(torch.as_tensor(classes), 3).float()[None] * 9.0


def test_scores_are_the_metrics_of_each_network() -> None:
    rng = np.random.default_rng(1)
    target, said = rng.integers(0, 3, 40), rng.integers(0, 3, (2, 40))
    out = torch.cat([logits_of(each) for each in said])
    found = exact("classification", "balanced_accuracy", out, torch.from_numpy(target))
    assert found == pytest.approx([balanced_accuracy_score(target, each) for each in said], abs=1e-6)


def test_the_jackknife_of_a_mean_is_the_standard_error_of_a_mean() -> None:
    rng = np.random.default_rng(2)
    right = rng.random(60) < 0.7
    found = score("classification", "accuracy", logits_of(np.where(right, 0, 1)), torch.zeros(60, dtype=torch.int64))
    assert float((found.jumps**2).sum()) == pytest.approx(right.var(ddof=1) / 60, rel=1e-4)


def test_the_jackknife_of_an_rmse_agrees_with_a_bootstrap_and_with_more_rows_than_groups() -> None:
    rng = np.random.default_rng(3)
    error, target = rng.normal(size=350), rng.normal(size=350)
    out = torch.from_numpy(target + error).float()[None, :, None]
    found = score("regression", "rmse", out, torch.from_numpy(target).float(), scale=2.0)
    assert found.exact[0] == pytest.approx(root_mean_squared_error(2 * target, 2 * (target + error)), rel=1e-5)
    assert len(found.jumps) == 100
    draws = [2 * np.sqrt(np.mean(rng.choice(error, 350) ** 2)) for _ in range(2000)]
    assert float(np.sqrt((found.jumps**2).sum())) == pytest.approx(np.std(draws), rel=0.2)


def test_one_network_on_rows_has_wilsons_interval() -> None:
    right = np.arange(50) < 43
    found = score("classification", "accuracy", logits_of(np.where(right, 0, 1)), torch.zeros(50, dtype=torch.int64))
    said = interval(found, "accuracy")
    wilson = stats.binomtest(43, 50).proportion_ci(method="wilson")
    assert (said.low, said.high) == pytest.approx((wilson.low, wilson.high), abs=0.01)
    assert (said.n, said.seeds, said.se_seeds) == (50, 1, 0.0)


def test_no_error_on_few_rows_is_not_certainty() -> None:
    found = score("classification", "accuracy", logits_of([0] * 20), torch.zeros(20, dtype=torch.int64))
    said = interval(found, "accuracy")
    assert said.high == 1.0
    assert 0.75 < said.low < 0.9


def test_seeds_without_rows_to_doubt_have_students_interval() -> None:
    values = np.array([0.61, 0.70, 0.66, 0.68, 0.59])
    nothing, seen = Scores(np.zeros(5), np.zeros((100, 5)), 10**6), Scores(values, np.zeros((100, 5)), 10**6)
    said = difference(nothing, seen, 1.0)
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    centre, half = values.mean(), (high - low) / 2
    z = stats.t.ppf(0.975, 4)
    assert half == pytest.approx(z * said.se_seeds)
    assert said.low < centre < said.high


def test_errors_stay_positive_and_shares_within_their_range() -> None:
    wide = Scores(np.array([0.02, 0.3, 0.01]), np.full((100, 3), 0.01), 100)
    assert interval(wide, "rmse").low > 0
    assert 0 <= interval(wide, "accuracy").low < interval(wide, "accuracy").high <= 1
    assert interval(wide, "r2").high < 1


def test_every_metric_has_a_scale_for_its_interval() -> None:
    assert set(BOUNDS) == {name for names in METRICS.values() for name in names}


def test_an_undefined_score_has_an_interval_of_nothing() -> None:
    for metric in BOUNDS:
        undefined = interval(Scores(np.full(3, np.nan), np.zeros((100, 3)), 100), metric)
        assert [undefined.to_json()[end] for end in ("mean", "low", "high")] == [None, None, None]
        assert not undefined.excludes_zero


def test_differences_are_paired_by_row_and_positive_where_the_first_is_better() -> None:
    rng = np.random.default_rng(4)
    hard = np.abs(rng.normal(size=80)) * 5  # rows differ far more than the two settings do
    out = torch.from_numpy(np.stack([hard, hard + 0.3])).float()[:, :, None]
    both = [score("regression", "mae", each[None], torch.zeros(80)) for each in out]
    paired = difference(both[0], both[1], 1.0)
    assert paired.mean == pytest.approx(0.3, abs=1e-4)
    assert paired.high - paired.low < 0.01
    assert paired.excludes_zero
    alone = interval(both[0], "mae")
    assert alone.high - alone.low > 1.0


def test_folds_are_averaged_with_the_variance_of_independent_rows() -> None:
    rng = np.random.default_rng(5)
    folds = [
        score("regression", "mae", torch.from_numpy(rng.normal(size=(1, 50, 1))).float(), torch.zeros(50)) for _ in range(4)
    ]
    mean = mean_over_folds(folds)
    assert mean.exact[0] == pytest.approx(np.mean([fold.exact[0] for fold in folds]))
    assert (mean.jumps**2).sum() == pytest.approx(sum((fold.jumps**2).sum() for fold in folds) / 16)
    assert mean.rows == 200


@pytest.mark.parametrize("rows_matter", [0.2, 1.0])
def test_the_interval_covers_the_truth_of_a_crossed_model(rows_matter: float) -> None:
    """Row, seed and interaction effects of known size: 95 % intervals cover the mean in about 95 % of 300 draws."""
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(300):
        seeds, rows = rng.normal(size=(5, 1)) * 0.1, rng.normal(size=(1, 40)) * rows_matter
        table = 3.0 + seeds + rows + rng.normal(size=(5, 40)) * 0.5
        out = torch.from_numpy(table).float()[:, :, None]
        said = interval(score("regression", "mae", out, torch.zeros(40)), "mae")
        covered += said.low <= 3.0 <= said.high
    assert 0.92 <= covered / 300 <= 0.98


def test_a_pair_of_seeds_says_little_and_one_nothing() -> None:
    low, high = over_seeds([1.0, 1.2, 0.8, 1.1, 0.9])
    assert (low, high) == pytest.approx(stats.ttest_1samp([1.0, 1.2, 0.8, 1.1, 0.9], 0).confidence_interval(0.95))
    assert over_seeds([1.0]) == (-np.inf, np.inf)

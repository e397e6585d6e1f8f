"""Importances, marginal effects, ensembles and verdicts against what they should be on made-up studies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pytest
import torch

from service.result import ChoiceBin, Interval, RangeBin, Setting
from service.search import Search
from service.spec import StudySpec, Task
from service.store.records import TrialRecord
from tests.results import interval, setting, winner
from workers.answer.ensemble import as_output, predictions, select
from workers.answer.importance import FEWEST_TRIALS, effects, importance
from workers.answer.verdict import verdict


def spec_of(**space: Any) -> StudySpec:
    raw = {"data": {"dataset": "diabetes"}, "space": {"preset": "off", **space}, "sampler": "random", "seed": 1}
    return StudySpec.model_validate(raw).resolved("regression")


def trials_of(spec: StudySpec, n: int, value: Any) -> list[TrialRecord]:
    """Random trials whose value is a function of their parameters."""
    drawn = [params for params, _ in Search(spec).propose(n)]
    return [
        TrialRecord(number, "complete", float(value(params)), 0, "epochs", 1, 0, params, {}, None, None)
        for number, params in enumerate(drawn)
    ]


SPACE: Mapping[str, Any] = {
    "l1": {"low": 1e-6, "high": 1e-2, "log": True, "off": True},
    "dropout": {"low": 0.1, "high": 0.6, "off": True},
    "lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "lr_schedule": ["constant", "step"],
}


def test_the_setting_that_decides_is_the_important_one() -> None:
    spec = spec_of(**SPACE)
    trials = trials_of(spec, 120, lambda p: 10 * p.get("dropout", 0.0) + np.log10(p["lr"]) / 50)
    found = importance(spec, trials)
    assert found.reason is None
    assert found.fanova is not None
    for shares in (found.fanova, found.ped_anova):
        assert shares is not None
        assert next(iter(shares)) == "dropout"
        assert shares["dropout"] > 0.5
        assert sum(shares.values()) == pytest.approx(1.0)
    assert set(found.fanova) == {"l1", "dropout", "lr", "lr_schedule", "step_every", "step_gamma"}


def test_switching_a_regularizer_on_counts_for_it() -> None:
    spec = spec_of(**SPACE)
    found = importance(spec, trials_of(spec, 120, lambda p: 5.0 * p["use_l1"] + 0.01 * p.get("dropout", 0.0)))
    assert found.fanova is not None
    assert found.fanova["l1"] > 0.8


@pytest.mark.parametrize(
    ("spec", "n", "value", "reason"),
    [
        (spec_of(**SPACE), FEWEST_TRIALS - 1, lambda p: p["lr"], f"{FEWEST_TRIALS} are needed"),
        (spec_of(**SPACE), 30, lambda _: 1.0, "the same value"),
        (spec_of(), 30, lambda _: 1.0, "no setting"),
    ],
)
def test_where_importances_mean_nothing_the_reason_is_told(spec: StudySpec, n: int, value: Any, reason: str) -> None:
    found = importance(spec, trials_of(spec, n, value))
    assert found.fanova is found.ped_anova is None
    assert reason in (found.reason or "")


def test_marginal_effects_are_the_means_of_their_bins() -> None:
    spec = spec_of(**SPACE)
    trials = trials_of(spec, 200, lambda p: p.get("dropout", -1.0) + (p["lr_schedule"] == "step"))
    by_setting = {each.setting: each.bins for each in effects(spec, trials)}
    off, *on = by_setting["dropout"]
    rates = np.array([trial.params["dropout"] for trial in trials if trial.params["use_dropout"]])
    assert isinstance(off, ChoiceBin)
    assert off.choice == "off"
    assert off.n + sum(each.n for each in on) == 200
    assert len(on) == 5
    ends: list[tuple[float, float]] = []
    for each in on:
        assert isinstance(each, RangeBin)
        inside = [t.value or 0.0 for t in trials if each.low <= t.params.get("dropout", -1) < each.high]
        assert each.mean == pytest.approx(np.mean(inside), abs=0.05)
        ends.append((each.low, each.high))
    assert (ends[0][0], ends[-1][1]) == pytest.approx((rates.min(), rates.max()))
    step = next(each for each in by_setting["lr_schedule"] if isinstance(each, ChoiceBin) and each.choice == "step")
    chosen = [trial.value or 0.0 for trial in trials if trial.params["lr_schedule"] == "step"]
    assert step.mean == pytest.approx(np.mean(chosen))
    assert step.standard_error == pytest.approx(np.std(chosen, ddof=1) / len(chosen) ** 0.5)


def test_rates_per_layer_are_one_setting() -> None:
    spec = spec_of(
        dropout={"low": 0.1, "high": 0.6, "off": True, "per_layer": True}, lr={"low": 1e-4, "high": 1e-2, "log": True}
    )
    trials = trials_of(spec, 60, lambda p: p.get("dropout_1", 0) + p.get("dropout_2", 0))
    found = importance(spec, trials).fanova
    assert found is not None
    assert found["dropout"] > 0.8


def test_an_ensemble_of_opposite_errors_cancels_them() -> None:
    rng = np.random.default_rng(0)
    target, error = rng.normal(size=50), rng.normal(size=50)
    library = torch.from_numpy(np.stack([target + error, target - error, target + 3.0])).float()[:, :, None]

    def score(mean: torch.Tensor) -> Any:
        return np.abs(mean.squeeze(-1).numpy() - target).mean(axis=1)

    members, best = select(library, score, 1.0)
    assert members == {0: 1, 1: 1}
    assert best == pytest.approx(0.0, abs=1e-6)


def test_the_greedy_choice_is_the_best_at_every_step() -> None:
    """Against the definition, written out over lists."""
    rng = np.random.default_rng(1)
    library = torch.from_numpy(rng.normal(size=(6, 30, 1))).float()

    def score(mean: torch.Tensor) -> Any:
        return (mean.squeeze(-1).numpy() ** 2).mean(axis=1)

    chosen: list[int] = []
    path = []
    for _ in range(25):
        options = [score(library[[*chosen, each]].mean(0)[None])[0] for each in range(6)]
        chosen.append(int(np.argmin(options)))
        path.append(min(options))
    members, best = select(library, score, 1.0)
    size = int(np.argmin(path)) + 1
    assert sorted(members.elements()) == sorted(chosen[:size])
    assert best == pytest.approx(min(path), rel=1e-5)


def test_averaged_probabilities_come_back_out_of_outputs() -> None:
    mean = predictions("classification", torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    assert torch.allclose(as_output("classification", mean).softmax(-1), mean)
    assert torch.equal(as_output("regression", mean), mean)


def scored(test: Interval | None, behind: Interval | None = None) -> Setting:
    return setting("any", 0.9, test=test, behind_winner=behind)


def test_the_verdict_says_whether_the_difference_is_clear() -> None:
    best = winner(test=interval(0.9))
    clear = scored(interval(0.8), interval(0.1, 0.05))
    assert verdict("f1_macro", best, clear, []) == (
        "Test f1 macro 0.9 with dropout, better than 0.8 for the same network without regularization."
    )
    unclear = scored(interval(0.8), interval(-0.01, 0.04))
    assert "no better than 0.8" in verdict("f1_macro", best, unclear, [])
    assert "includes 0" in verdict("f1_macro", best, unclear, [])
    assert "does not converge" in verdict("f1_macro", winner(regularizers=()), scored(None), [])


def test_the_verdict_says_where_there_is_nothing_to_compare() -> None:
    undefined = interval(math.nan)
    assert verdict("roc_auc", winner(test=undefined), scored(undefined, undefined), []) == (
        "Test roc auc is undefined on these test rows; on validation rows the best is dropout."
    )
    assert "no seed trained" in verdict("rmse", winner(), scored(interval(0.8)), [])


def test_averages_are_told_for_every_task() -> None:
    for task in get_args(Task):
        assert as_output(task, predictions(task, torch.ones(1, 2, 1))).shape == (1, 2, 1)

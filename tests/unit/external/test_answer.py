"""The answer from a program's runs: which settings are run again, who wins, and the intervals, against SciPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from service.external.answer import conclude, interval, plan_finals, regularizers_in
from service.result.external import ExternalResult
from service.spec.external import ExternalSpec
from service.store.records import FinalRun, TrialRecord

SPACE = {
    "weight_decay": {"low": 1e-4, "high": 1, "log": True, "off": True},
    "dropout": {"low": 0.1, "high": 0.5, "off": True},
    "custom": {"hidden": {"low": 8, "high": 64}},
}


def a_spec(**changes: Any) -> ExternalSpec:
    budget = {"trials": 9, "finalists": 2, "seeds": 3, **changes.pop("budget", {})}
    raw = {"executor": "external", "metric": "loss", "direction": "minimize", "space": SPACE, "budget": budget}
    return ExternalSpec.model_validate({**raw, **changes})


def a_trial(number: int, value: float, also: dict[str, float] | None = None, **params: Any) -> TrialRecord:
    drawn = {"use_weight_decay": True, "weight_decay": 0.1, "use_dropout": True, "dropout": 0.2, "hidden": 16, **params}
    record = TrialRecord(number, "complete", value, 0, "told", 1, 0, drawn, {}, None, None)
    return record if also is None else TrialRecord(**{**vars(record), "also": also})


TRIALS = [a_trial(0, 0.5), a_trial(1, 0.3), a_trial(2, 0.2, hidden=32), a_trial(3, 0.3, use_dropout=False)]


def told(run: FinalRun, value: float | None, test: float | None = None) -> FinalRun:
    state = "fail" if value is None else "complete"
    reason = "out of memory" if value is None else None
    return FinalRun(**{**vars(run), "state": state, "value": value, "test": test, "reason": reason})


def whole(
    spec: ExternalSpec,
    trials: Sequence[TrialRecord],
    value: Callable[[FinalRun], float | None],
    test: Callable[[FinalRun], float | None] = lambda _: None,
) -> tuple[list[FinalRun], ExternalResult | None]:
    runs: list[FinalRun] = []
    while added := plan_finals(spec, trials, runs):
        runs += [told(run, value(run), test(run)) for run in added]
    return runs, conclude(spec, trials, runs)


def scored(run: FinalRun) -> float:
    base = {"trial 2": 0.25, "trial 1": 0.2, "unregularized": 0.6, "without dropout": 0.3, "without weight_decay": 0.21}
    return base[run.name] + 0.01 * run.seed_index


def test_the_best_settings_are_run_first_then_the_winner_without_its_regularizers() -> None:
    spec = a_spec()
    first = plan_finals(spec, TRIALS, [])
    assert [(run.name, run.seed_index, run.role, run.trial) for run in first] == [
        (f"trial {number}", index, "finalist", number) for number in (2, 1) for index in range(3)
    ]
    assert first[0].params == {"weight_decay": 0.1, "dropout": 0.2, "hidden": 32}
    runs, _ = whole(spec, TRIALS, scored)
    assert [run.number for run in runs] == list(range(15))
    named = {run.name: run for run in runs}
    assert set(named) == {"trial 1", "trial 2", "unregularized", "without weight_decay", "without dropout"}
    assert named["unregularized"].params == {"weight_decay": 0.0, "dropout": 0.0, "hidden": 16}
    assert named["without dropout"].params == {"weight_decay": 0.1, "dropout": 0.0, "hidden": 16}


def test_the_winner_has_the_best_mean_over_seeds_not_the_best_trial() -> None:
    _, result = whole(a_spec(), TRIALS, scored)
    assert result is not None
    assert result.winner.name == "trial 1"
    assert result.winner.valid is not None
    assert result.winner.valid.mean == pytest.approx(0.21)
    assert result.optimism == pytest.approx(0.21 - 0.3)
    assert [each.name for each in result.others] == ["trial 2"]
    assert result.gain is not None
    assert result.gain.mean == pytest.approx(0.4)
    assert result.gain.low > 0.39
    assert [each.without for each in result.ablation] == ["dropout", "weight_decay"]
    assert "regularization gains 0.4" in result.verdict
    assert result.test_gain is None


def test_test_scores_of_winner_and_baseline_alone_are_read() -> None:
    _, result = whole(a_spec(), TRIALS, scored, lambda run: scored(run) + 1.0)
    assert result is not None
    assert result.baseline is not None
    assert result.winner.test is not None
    assert result.baseline.test is not None
    assert all(each.test is None for each in result.others)
    assert result.test_gain is not None
    assert result.test_gain.mean == pytest.approx(0.4)
    assert "on test data" in result.verdict


def test_a_maximized_objective_is_turned() -> None:
    spec = a_spec(metric="accuracy", direction="maximize", budget={"finalists": 1})
    _, result = whole(spec, TRIALS, lambda run: 0.9 if run.name == "trial 0" else 0.5)
    assert result is not None
    assert result.winner.name == "trial 0"
    assert result.gain is not None
    assert result.gain.mean == pytest.approx(0.4)


def test_a_tie_is_named() -> None:
    noise = {"trial 1": (0.2, 0.3, 0.25), "trial 2": (0.3, 0.2, 0.27)}
    _, result = whole(a_spec(), TRIALS, lambda run: noise.get(run.name, (0.9, 0.8, 0.9))[run.seed_index])
    assert result is not None
    assert result.winner.name == "trial 1"
    assert result.ties == ("trial 2",)


def test_one_regularizer_needs_no_ablation_of_its_own() -> None:
    trials = [a_trial(0, 0.1, use_dropout=False)]
    runs, result = whole(a_spec(), trials, lambda run: {"trial 0": 0.1}.get(run.name, 0.3) + 0.01 * run.seed_index)
    assert {run.name for run in runs} == {"trial 0", "unregularized"}
    assert result is not None
    assert [(each.without, round(each.change, 6)) for each in result.ablation] == [("weight_decay", 0.2)]


def test_a_winner_without_regularizers_has_no_baseline() -> None:
    trials = [a_trial(0, 0.1, use_dropout=False, use_weight_decay=False)]
    runs, result = whole(a_spec(), trials, lambda _: 0.1)
    assert {run.name for run in runs} == {"trial 0"}
    assert result is not None
    assert result.baseline is None
    assert "no regularizer on" in result.verdict


def test_failed_runs_are_told_and_do_not_win() -> None:
    def some_fail(run: FinalRun) -> float | None:
        if run.name != "trial 1":
            return scored(run)
        return None if run.seed_index == 2 else 0.0

    _, result = whole(a_spec(), TRIALS, some_fail)
    assert result is not None
    assert result.winner.name == "trial 2"
    assert next(each for each in result.others if each.name == "trial 1").failed == ("out of memory",)
    assert whole(a_spec(), TRIALS, lambda _: None)[1] is None


def test_without_finals_the_best_trial_is_the_answer() -> None:
    runs, result = whole(a_spec(finals=False), TRIALS, scored)
    assert runs == []
    assert result is not None
    assert result.winner.name == "trial 2"
    assert result.seeds == 1
    assert "not run again" in result.verdict


def test_the_front_has_what_no_trial_dominates() -> None:
    trials = [a_trial(0, 0.1, {"size": 9.0}), a_trial(1, 0.2, {"size": 5.0}), a_trial(2, 0.3, {"size": 7.0}, hidden=32)]
    _, result = whole(a_spec(also={"size": "minimize"}), trials, lambda run: 0.1)
    assert result is not None
    assert result.front is not None
    assert [each.trial for each in result.front] == [0, 1]
    assert result.front[0].values == {"loss": 0.1, "size": 9.0}


def test_intervals_are_those_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=8), rng.normal(0.5, size=8)
    found = interval(b - a)
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.n == 8
    assert np.isnan(interval(np.array([0.3])).low)


def test_words_and_zeros_are_off() -> None:
    spec = a_spec(space={"custom": {"norm": ["batch", "off"], "mix": {"low": 0, "high": 1, "kind": "float", "off": True}}})
    assert regularizers_in(spec, {"norm": "batch", "mix": 0.0}) == ("norm",)
    assert regularizers_in(spec, {"norm": "off", "mix": 0.1}) == ("mix",)


def test_a_result_survives_json() -> None:
    _, result = whole(a_spec(), TRIALS, scored)
    assert result is not None
    assert ExternalResult.model_validate(result.to_json()).to_json() == result.to_json()

"""When a search ends by itself: the formula against integrals and simulation, and a whole study that does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from service.spec import Conclude, EarlyStopping, StudySpec
from tests.benchmarks.one_process import run_study
from tests.unit.stack.runs import data, recipe, runner
from workers.scoring.scores import score
from workers.searching.conclusion import Conclusion, _ein, expected_improvement
from workers.stack.run import Protocol, Run


@pytest.mark.parametrize("x", [1e-9, 0.1, 1.0, 7.0])
def test_the_exponential_integral(x: float) -> None:
    assert _ein(x) == pytest.approx(quad(lambda t: -math.expm1(-t) / t, 0, x)[0], rel=1e-6)


@pytest.mark.parametrize("tail", ["exponential", "normal", "uniform"])
def test_the_expected_improvement_is_an_upper_limit_of_what_comes(tail: str) -> None:
    """Over 300 searches of independent trials: not below the truth, and not far above it for an exponential tail."""
    rng = np.random.default_rng(0)
    draws = {"exponential": -rng.exponential(size=(300, 160)), "normal": rng.normal(size=(300, 160))}
    draws["uniform"] = rng.uniform(size=(300, 160))
    estimated, came = [], []
    for values in draws[tail]:
        estimated.append(expected_improvement(values[:80].tolist(), 80))
        came.append(max(0.0, values[:80].min() - values.min()))
    truth = float(np.mean(came))
    assert np.mean(estimated) > 0.95 * truth
    if tail == "exponential":
        assert np.mean(estimated) < 3.0 * truth


def test_pruned_trials_count_as_trials_without_a_chance() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=60).tolist()
    thinned = [value if index % 2 else None for index, value in enumerate(values)]
    assert 0 < expected_improvement(thinned, 40) < math.inf
    assert expected_improvement([None] * 55 + values[:5], 40) == math.inf


def test_it_falls_with_what_is_left_and_equal_values_promise_nothing() -> None:
    values = np.random.default_rng(2).normal(size=100).tolist()
    left = [expected_improvement(values, n) for n in (400, 100, 10, 1)]
    assert left == sorted(left, reverse=True)
    assert expected_improvement([1.0] * 60, 40) == 0.0


def test_nothing_ends_before_its_time_and_the_standard_error_is_that_of_the_best_run() -> None:
    on = data(task="regression")
    protocol = Protocol("rmse", 3, EarlyStopping(patience=5))
    stack = runner(recipe(), on)
    run = Run(0, recipe(), ((0, 3),), protocol)
    stack.add([run])
    while not run.ending:
        stack.epoch()
    conclusion = Conclusion(Conclude(after=20, tolerance=1.0), protocol, on)
    same = [run.best_value] * 40
    assert Conclusion(Conclude(), protocol, on).reason(same[:30], 10) is None
    conclusion.learn(run, stack)
    rows = on.valid[0]
    out = stack.blocks[0].stack.predict(stack.blocks[0].stack.best_weights, stack.blocks[0].stack.best_stats, rows[None])
    jumps = score("regression", "rmse", out, on.y[rows], 2.0).jumps
    error = float(np.sqrt((jumps**2).sum()))
    said = conclusion.reason(same, 10)
    assert said is not None
    assert f"its standard error {error:.2g}" in said
    assert "the 10 trials left" in said
    assert conclusion.reason(same, 10) is None
    assert conclusion.reason([*same, *same], 0) is None


def test_a_study_ends_by_itself_with_its_reason_and_again_at_the_same_trial(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = "\n".join(f"{a},{b},{a - b + c}" for a, b, c in rng.normal(size=(150, 3)).tolist())
    path = tmp_path / "rows.csv"
    path.write_text(f"a,b,y\n{rows}\n")
    raw = {
        "data": {"path": str(path), "target": "y"},
        "model": {"depth": 0},
        "space": {"preset": "off", "lr": {"low": 0.1, "high": 0.2}},
        "budget": {"trials": 100, "epochs": 30, "conclude": {"after": 20, "tolerance": 0.5}},
        "sampler": "random",
    }
    spec = StudySpec.model_validate(raw).resolved("regression")
    ends = []
    for name in ("first", "again"):
        store, study_id = run_study(spec, tmp_path / name, roots=(tmp_path,))
        study = store.studies.get(study_id)
        assert study.result is not None
        ends.append(study.result["concluded"])
        assert study.counts.finished == study.budget_trials == study.result["concluded"]["trials"] < 100
        assert str(study.reason).startswith("concluded: the ")
        store.close()
    assert ends[0] == ends[1]
    assert ends[0]["budget"] == 100

"""The whole protocol on small data, without a store: what is chosen when, and what the result says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import root_mean_squared_error

from service.result import Findings
from service.spec import StudySpec
from service.store.records import TrialRecord
from tests.benchmarks.coverage import ROWS, prepared, search, spec_of, table
from workers.answer import Answer, Finalizer
from workers.answer.candidates import finalists
from workers.data.locked import test_part as locked_rows
from workers.plain.network import Shape, build
from workers.study_data import Prepared

Whole = tuple[StudySpec, Prepared, list[TrialRecord], Answer, list[str]]


def run(task: str, **changes: Any) -> Whole:
    spec = StudySpec.model_validate(spec_of(task, seed=3).model_dump(mode="json") | changes)
    data = prepared(table(task, ROWS, np.random.default_rng(3)), spec)
    trials = search(spec, data)
    accesses: list[str] = []
    answer = Finalizer(spec, data, lambda: None).run(trials, lambda: accesses.append("test"))
    return spec, data, trials, answer, accesses


@pytest.fixture(scope="module")
def regression() -> Whole:
    return run("regression")


@pytest.fixture(scope="module")
def classification() -> Whole:
    folds = {"method": "kfold", "test_fraction": 0.2, "folds": 2}
    return run("classification", validation=folds, budget={"trials": 20, "epochs": 6, "finalists": 3, "seeds": 2})


def test_the_winner_is_the_best_mean_on_validation_and_the_test_part_is_opened_once(regression: Whole) -> None:
    spec, _, trials, answer, accesses = regression
    most = spec.budget.finalists
    result = answer.findings
    assert accesses == ["test"]
    settings = [result.winner, *(each for each in result.others if each.role == "finalist")]
    assert len(settings) == most
    assert result.winner.valid.mean == min(each.valid.mean for each in settings if each.valid)
    assert {each.trial for each in settings} == {trial.number for trial in trials[:most]}
    assert Findings.model_validate(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result


def test_the_handed_out_network_has_the_scores_that_the_result_states(regression: Whole) -> None:
    spec, data, _, answer, _ = regression
    ensemble = answer.findings.ensemble
    assert ensemble is not None
    single = ensemble.single
    assert (answer.model.name, answer.model.seed) == (single.name, single.seed)
    model = build(Shape.of(answer.model.recipe.effective(), data.device.inputs, data.device.outputs))
    model.load_state_dict(dict(answer.model.weights))
    model.eval()
    fold = data.folds[0]
    x, y = locked_rows(data.table, data.split, fold)
    with torch.no_grad():
        said, valid = (model(torch.from_numpy(rows)).squeeze(1).numpy() for rows in (x, fold.x_valid))
    assert single.test.mean == pytest.approx(fold.target.scale * root_mean_squared_error(y, said), rel=1e-5)
    assert single.valid == pytest.approx(fold.target.scale * root_mean_squared_error(fold.y_valid, valid), rel=1e-5)
    assert spec.metric == "rmse"


def test_scores_of_modules_are_those_of_the_stack(regression: Whole) -> None:
    """`valid` comes from the stack that trained; gap and ties from modules with the same weights."""
    for setting in (regression[3].findings.winner, regression[3].findings.baseline):
        gap = setting.gap
        assert gap is not None
        assert setting.train is not None
        assert setting.valid is not None
        assert setting.test is not None
        assert setting.train.mean + gap.train_valid == pytest.approx(setting.valid.mean, rel=1e-4)
        assert setting.valid.mean + gap.valid_test == pytest.approx(setting.test.mean, rel=1e-4)
        assert gap.train_test == pytest.approx(gap.train_valid + gap.valid_test)


def test_gains_ablations_and_optimism_add_up(regression: Whole) -> None:
    _, _, trials, answer, _ = regression
    result = answer.findings
    winner, baseline = result.winner, result.baseline
    assert baseline.test is not None
    assert result.gain is not None
    assert result.gain.mean == pytest.approx(baseline.test.mean - winner.test.mean, abs=1e-6)
    assert result.gain == baseline.behind_winner
    assert winner.behind_winner is None
    for row in result.ablation:
        assert row.change == pytest.approx(row.valid.mean - winner.valid.mean)
        assert row.low <= row.change <= row.high
    assert {row.without for row in result.ablation} == set(winner.regularizers)
    selection = result.selection
    assert selection is not None
    assert selection.found == trials[0].value
    assert selection.optimism_test == pytest.approx(selection.test - selection.found)


def test_the_simplest_of_what_ties_is_recommended(regression: Whole) -> None:
    result = regression[3].findings
    settings = {each.name: each for each in (result.winner, *result.others)}
    tied = [result.winner.name, *result.ties]
    fewest = min(len(settings[name].regularizers) for name in tied)
    recommended = result.recommended
    assert recommended is not None
    assert recommended.name in tied
    assert len(settings[recommended.name].regularizers) == fewest
    assert recommended.recipe == settings[recommended.name].recipe
    assert recommended.reason


def test_curves_and_weights_are_of_winner_and_baseline(regression: Whole) -> None:
    spec, _, _, answer, _ = regression
    result = answer.findings
    names = {result.winner.name, "unregularized"}
    assert result.curves is not None
    assert result.weights is not None
    assert result.baseline.valid is not None
    assert set(result.curves) == set(result.weights) == names
    curve = result.curves["unregularized"]
    assert curve.epochs == tuple(range(1, spec.budget.epochs + 1))
    assert curve.seeds == (5,) * spec.budget.epochs
    assert curve.course("rmse")[-1] == pytest.approx(result.baseline.valid.mean)
    weights = result.weights["unregularized"]
    assert [layer.name for layer in weights.layers] == ["blocks.0.0.weight", "head.weight"]
    assert weights.norm.mean > max(layer.norm for layer in weights.layers)
    assert 0 <= weights.sparsity.mean < 0.2


def test_folds_are_trained_together_and_scored_on_all_their_rows(classification: Whole) -> None:
    _, data, _, answer, _ = classification
    result = answer.findings
    assert data.device.folds == 2
    assert len([each for each in (result.winner, *result.others) if each.role == "finalist"]) == 3
    assert (result.seeds, result.winner.valid.n) == (2, 2)
    winner = result.winner
    assert winner.gap is not None
    assert winner.valid.mean + -winner.gap.valid_test == pytest.approx(winner.test.mean, abs=1e-4)
    assert 0 <= winner.test.low <= winner.test.mean <= winner.test.high <= 1
    assert answer.model.weights["head.weight"].shape[0] == 2


def test_the_ensemble_is_no_worse_than_any_of_its_networks_on_validation(classification: Whole) -> None:
    ensemble = classification[3].findings.ensemble
    assert ensemble is not None
    assert ensemble.valid >= ensemble.single.valid
    assert sum(member.share for member in ensemble.members) == pytest.approx(1.0)
    assert len(classification[3].ensemble) == len(ensemble.members)


def test_the_same_setting_twice_is_one_finalist(regression: Whole) -> None:
    spec, _, trials, _, _ = regression
    assert [each.trial for each in finalists(spec, [trials[0], trials[0], trials[1]])] == [
        trials[0].number,
        trials[1].number,
    ]


def test_a_network_is_pruned_step_by_step(regression: Whole) -> None:
    _, _, _, answer, _ = regression
    model, result = answer.model, answer.findings
    assert result.sparsification is not None
    assert set(result.sparsification) == set(result.curves or ())
    points = result.sparsification[model.name]
    assert [point.asked for point in points] == sorted(point.asked for point in points)
    np.testing.assert_allclose([point.sparsity for point in points], [point.asked for point in points], atol=0.02)
    whole, bare = points[0].score, points[-1].score
    valid = result.winner.valid
    # It is one of n values, and none is further from their mean than (n - 1) / sqrt(n) standard deviations.
    assert abs(whole - valid.mean) <= (valid.n - 1) / valid.n**0.5 * valid.std * 1.001
    assert bare > whole

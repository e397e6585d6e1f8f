"""Lanes that are handed on give what training from the start gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.spec import Recipe, StudySpec
from tests.benchmarks.coverage import ROWS, prepared, spec_of, table
from workers.answer.candidates import Candidate, baselines
from workers.answer.training import Trainer


def trained(patience: int, group: list[Candidate]) -> list[Candidate]:
    raw = spec_of("regression", seed=2).model_dump(mode="json")
    spec = StudySpec.model_validate(raw | {"early_stopping": {"patience": patience}})
    data = prepared(table("regression", ROWS, np.random.default_rng(2)), spec)
    Trainer(spec, data.device, lambda: None, range(2)).train(group)
    return group


@pytest.mark.parametrize("patience", [1, 100])
def test_a_baseline_that_continues_another_is_the_one_trained_alone(patience: int) -> None:
    recipe = Recipe({"widths": (24.0,), "lr": 0.1, "batch_size": 72, "dropout": 0.3})
    plain, early, defaults = trained(patience, baselines(recipe))
    (alone,) = trained(patience, [Candidate("alone", "baseline", recipe.unregularized(), early_stopping=False)])
    (stopped,) = trained(patience, [Candidate("stopped", "baseline", recipe.unregularized())])
    for handed, whole in ((plain, alone), (early, stopped)):
        assert list(handed.runs) == [0, 1]
        for index, run in handed.runs.items():
            assert run.curve["rmse"] == pytest.approx(whole.runs[index].curve["rmse"], rel=1e-4)
            assert (run.epoch, run.best_epoch, run.ending) == (
                whole.runs[index].epoch,
                whole.runs[index].best_epoch,
                whole.runs[index].ending,
            )
            for name, weight in handed.weights[index][0].items():
                assert torch.allclose(weight, whole.weights[index][0][name], rtol=1e-3, atol=1e-5)
    assert plain.runs[0].epoch == 12
    assert plain.runs[0].best_epoch == 11
    assert ("converged" in {run.ending for run in early.runs.values()}) == (patience == 1)
    assert len(defaults.runs) == 2


def test_a_network_that_diverges_has_no_runs_and_neither_has_what_continues_it() -> None:
    plain, early, _ = trained(2, baselines(Recipe({"widths": (24.0,), "optimizer": "sgd", "lr": 10.0, "batch_size": 72})))
    assert plain.runs == early.runs == {}

"""What is told of every way in which a trial may end."""

from __future__ import annotations

import math
from typing import get_args

from service.spec import StudySpec
from service.store.records import AskedTrial
from tests.unit.stack.runs import data, protocol, recipe, runner
from workers.searching.endings import OUT_OF_MEMORY, result_of
from workers.searching.objectives import Objectives
from workers.stack.run import Ending, Run

TRIAL = AskedTrial(7, 0, {}, {}, attempt=2)
SPEC = StudySpec.model_validate({"data": {"dataset": "wine"}, "also": ["f1"]}).resolved("classification")
TOLD: dict[Ending | None, tuple[str, str]] = {
    None: ("pruned", "pruned"),
    "converged": ("complete", "converged"),
    "epochs": ("complete", "epochs"),
    "time": ("complete", "time"),
    "stopped": ("complete", "stopped"),
    "not_finite": ("fail", "loss is not finite"),
    "out_of_memory": ("retry", OUT_OF_MEMORY),
}


def ended(ending: Ending | None, f1: float = 0.3) -> Run:
    run = Run(TRIAL.id, recipe(), ((0, 1),), protocol(), epoch=3, ending=ending)
    run.curve = {"loss": [1.0, 0.5, math.nan if ending == "not_finite" else 0.4], "f1": [0.1, f1, 0.2]}
    run.best_value, run.best_epoch = 0.9, 1
    return run


def test_every_ending_has_its_state_and_reason() -> None:
    assert set(TOLD) == {None, *get_args(Ending)}
    on = data()
    objectives = Objectives(SPEC, protocol(), on)
    for ending, (state, reason) in TOLD.items():
        told = result_of(ended(ending), runner(recipe(), on), TRIAL, objectives)
        assert (told.trial_id, told.state, told.stop_reason, told.epochs) == (7, state, reason, 3)
        reached = state in ("complete", "pruned")
        assert (told.value, told.best_step, told.also) == ((0.9, 1, {"f1": 0.3}) if reached else (None, None, {}))
        curve = {"retry": {}, "fail": {"loss": [1.0, 0.5], "f1": [0.1, 0.3]}}
        assert told.curve == curve.get(state, {"loss": [1.0, 0.5, 0.4], "f1": [0.1, 0.3, 0.2]})


def test_an_objective_without_a_value_fails_the_trial_and_cuts_the_curve_before_it() -> None:
    on = data()
    told = result_of(ended("epochs", f1=math.inf), runner(recipe(), on), TRIAL, Objectives(SPEC, protocol(), on))
    assert (told.state, told.stop_reason, told.value, told.also) == ("fail", "f1 is not finite", None, {})
    assert told.curve == {"loss": [1.0], "f1": [0.1]}
    assert told.attrs == {"stack": "none, 0 lanes", "attempt": 2}

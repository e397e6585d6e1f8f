"""The result to tell of a trial that ended on its lanes. Independent of the store."""

from __future__ import annotations

import math
from typing import assert_never

from service.store.records import AskedTrial, TrialResult
from workers.searching.objectives import Objectives
from workers.stack.run import Run
from workers.stack.runner import StackRunner

OUT_OF_MEMORY = "out of memory, alone on the device"


def result_of(run: Run, runner: StackRunner, trial: AskedTrial, objectives: Objectives) -> TrialResult:
    """The result of a run that is still on its lanes; a run without an ending of its own was pruned."""
    also: dict[str, float] = {}
    match run.ending:
        case "out_of_memory":
            return TrialResult(run.key, "retry", None, None, OUT_OF_MEMORY, run.epoch)
        case "not_finite":
            unknown = ["loss"]
        case "converged" | "epochs" | "time" | "stopped" | None:
            also = objectives.further(run, runner)
            unknown = [name for name in also if not math.isfinite(also[name])]
        case _:
            assert_never(run.ending)
    lanes = f"{run.recipe.word('normalization')}, {runner.stack_lanes} lanes"
    curve, attrs = _finite(run.curve), {"stack": lanes, "attempt": trial.attempt}
    if unknown:
        return TrialResult(run.key, "fail", None, None, f"{unknown[0]} is not finite", run.epoch, curve, attrs)
    reached = (run.best_value, run.best_epoch, run.ending or "pruned", run.epoch)
    return TrialResult(run.key, "complete" if run.ending else "pruned", *reached, curve, attrs, also)


def not_begun(trial: AskedTrial) -> TrialResult:
    """The result of a trial that was stopped before its first epoch."""
    return TrialResult(trial.id, "pruned", None, None, "stopped", 0, {}, {"attempt": trial.attempt})


def _finite(curve: dict[str, list[float]]) -> dict[str, list[float]]:
    """The curve as JSON can represent it: up to the first epoch with a value that is not finite."""
    columns = list(curve.values())
    good = 0
    while columns and good < len(columns[0]) and all(math.isfinite(column[good]) for column in columns):
        good += 1
    return {name: column[:good] for name, column in curve.items()}

"""When a run has converged, by whichever metric it is watched, and which epoch it keeps."""

from __future__ import annotations

from typing import Any

import pytest

from service.spec import EarlyStopping, Recipe
from workers.stack.run import Protocol, Run


def watched(values: list[float], *, name: str, metric: str = "accuracy", **stopping: Any) -> Run:
    """A run whose metric ``name`` takes ``values``, while its loss rises and its objective falls."""
    run = Run(0, Recipe({}), ((0, 1),), Protocol(metric, len(values), EarlyStopping(**stopping) if stopping else None))
    for epoch, value in enumerate(values):
        run.observe(1.0, {"loss": 1.0 + epoch, "accuracy": 1.0 - 0.01 * epoch, name: value})
        if run.ending:
            break
    return run


@pytest.mark.parametrize(
    ("name", "values", "best"),
    [
        ("roc_auc", [0.5, 0.7, 0.9, 0.8, 0.8, 0.95], 2),
        ("log_loss", [0.9, 0.5, 0.4, 0.45, 0.5, 0.1], 2),
        ("accuracy", [0.1, 0.2, 0.3, 0.3, 0.3, 0.9], 4),  # the last of equally good ones
        ("loss", [3.0, 2.0, 1.0, 1.0, 1.0, 0.0], 4),
    ],
)
def test_any_metric_can_be_monitored_in_its_own_direction(name: str, values: list[float], best: int) -> None:
    run = watched(values, name=name, patience=2, monitor=name)
    assert (run.ending, run.epoch, run.best_epoch) == ("converged", 5, best)
    assert run.best_value == run.curve["accuracy"][best]


def test_the_objective_is_monitored_if_nothing_is_said() -> None:
    run = watched([0.1, 0.2, 0.1, 0.1, 0.1], name="f1", metric="f1", patience=3)
    assert (run.ending, run.best_epoch, run.best_value) == ("converged", 1, 0.2)


def test_an_improvement_must_be_more_than_min_delta() -> None:
    values = [0.5, 0.59, 0.65, 0.70, 0.72, 0.74]
    run = watched(values, name="roc_auc", patience=2, monitor="roc_auc", min_delta=0.1)
    assert (run.ending, run.epoch, run.best_epoch) == ("converged", 5, 2)


def test_without_restore_best_the_last_epoch_is_kept() -> None:
    run = watched([0.9, 0.8, 0.7, 0.6], name="roc_auc", patience=2, monitor="roc_auc", restore_best=False)
    assert (run.ending, run.best_epoch) == ("converged", 2)


def test_switched_off_a_run_goes_to_its_last_epoch() -> None:
    run = watched([0.9, 0.1, 0.1, 0.1], name="roc_auc")
    assert (run.ending, run.epoch, run.best_epoch) == ("epochs", 4, 3)

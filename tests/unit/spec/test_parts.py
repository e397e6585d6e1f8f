"""Metrics, samplers, pruners and early stopping in a spec: what is accepted, and which errors are reported."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from service.api.issues import validation_issues
from service.search import recipe
from service.spec import LOWER_IS_BETTER, StudySpec
from service.spec.metrics import METRICS

BAD: list[tuple[dict[str, Any], str, object]] = [
    ({"metric": "auc"}, "metric", "auc"),
    ({"task": "regression", "metric": "roc_auc"}, "metric", "roc_auc"),
    ({"task": "classification", "metric": "r2"}, "metric", "r2"),
    ({"early_stopping": {"monitor": "auc"}}, "early_stopping.monitor", "auc"),
    ({"task": "regression", "early_stopping": {"monitor": "f1"}}, "early_stopping.monitor", "f1"),
    ({"early_stopping": {"min_delta": -1}}, "early_stopping.min_delta", -1),
    ({"pruner": {"name": "percentile", "percentile": 101}}, "pruner.percentile", 101),
    ({"pruner": {"name": "percentile", "startup_trials": -1}}, "pruner.startup_trials", -1),
    ({"pruner": {"name": "hyperband", "reduction_factor": 1}}, "pruner.reduction_factor", 1),
    ({"pruner": {"name": "hyperband", "min_epochs": 9}, "budget": {"epochs": 8}}, "pruner.min_epochs", 9),
    (
        {"pruner": {"name": "patient", "pruner": {"name": "hyperband", "min_epochs": 9}}, "budget": {"epochs": 8}},
        "pruner.pruner.min_epochs",
        9,
    ),
    ({"also": ["auc"]}, "also.0", "auc"),
    ({"also": "gap"}, "also", "gap"),
    ({"also": ["gap", "mae", "r2"]}, "also", ["gap", "mae", "r2"]),
    ({"task": "regression", "also": ["gap", "f1"]}, "also", ["gap", "f1"]),
    ({"also": ["gap", "gap"]}, "also", ["gap", "gap"]),
    ({"metric": "mae", "also": ["mae"]}, "also", ["mae"]),
    ({"metric": "pinball"}, "quantile", None),
    ({"metric": "pinball", "quantile": 1.0}, "quantile", 1.0),
    ({"metric": "pinball", "quantile": "high"}, "quantile", "high"),
    ({"metric": "pinball", "quantile": 0.9, "task": "classification"}, "metric", "pinball"),
    ({"metric": "rmse", "quantile": 0.9}, "metric", "rmse"),
    ({"metric": "rmse", "also": ["pinball"]}, "also", ["pinball"]),
    ({"metric": "mae", "early_stopping": {"monitor": "pinball"}}, "early_stopping.monitor", "pinball"),
    ({"metric": "pinball", "quantile": 0.5, "space": {"huber_delta": 1.0}}, "space.huber_delta", 1.0),
    ({"also": ["gap"], "sampler": "cma_es"}, "sampler", "cma_es"),
    ({"also": ["gap"], "sampler": {"name": "lipo"}}, "sampler", "lipo"),
    ({"also": ["gap"], "sampler": "bobyqa"}, "sampler", "bobyqa"),
    ({"also": ["gap"], "pruner": "median"}, "pruner", "median"),
    ({"also": ["gap"], "budget": {"conclude": "on"}}, "budget.conclude", "on"),
    ({"pruner": "threshold"}, "pruner", {"name": "threshold"}),
    ({"pruner": {"name": "threshold", "lower": 2, "upper": 1}}, "pruner.lower", 2.0),
    ({"pruner": {"name": "threshold", "lower": "a"}}, "pruner.lower", "a"),
    ({"data": {"dataset": "wine", "split": "x0", "time": "x1"}}, "data.split", "x0"),
    ({"data": {"dataset": "wine", "scaling": "sturdy"}}, "data.scaling", "sturdy"),
    ({"data": {"dataset": "wine", "impute": "zero"}}, "data.impute", "zero"),
    ({"data": {"dataset": "wine", "max_levels": 1}}, "data.max_levels", 1),
    ({"validation": {"repeats": 0}}, "validation.repeats", 0),
    ({"data": {"dataset": "wine", "time": "x0"}, "validation": {"repeats": 2}}, "validation.repeats", 2),
    ({"data": {"dataset": "wine", "time": "x0"}, "validation": {"given": True}}, "validation.given", True),
    ({"sampler": {"name": "grid", "points": 1}}, "sampler.points", 1),
    ({"sampler": {"name": "cma_es", "population": 2}}, "sampler.population", 2),
    ({"sampler": {"name": "gp", "startup_trials": 0}}, "sampler.startup_trials", 0),
    ({"enqueue": [{"l1": "off"}, {"lr": "fast"}]}, "enqueue.1.lr", "fast"),
    ({"enqueue": [{"lr": 0.5}]}, "enqueue.0.lr", 0.5),
    ({"enqueue": [{"lr": True}]}, "enqueue.0.lr", True),
    ({"enqueue": [{"lr": "off"}]}, "enqueue.0.lr", "off"),
    ({"enqueue": [{"learning_rate": 0.1}]}, "enqueue.0.learning_rate", 0.1),
    ({"enqueue": [{"normalization": "group"}]}, "enqueue.0.normalization", "group"),
    ({"enqueue": [{"batch_size": 64}]}, "enqueue.0.batch_size", 64),
    ({"enqueue": [{"cosine_floor": 0.0}]}, "enqueue.0.cosine_floor", 0.0),
    ({"enqueue": [{"dropout": [0.1, 0.2]}]}, "enqueue.0.dropout", (0.1, 0.2)),
    ({"enqueue": [{}, {}], "budget": {"trials": 1}}, "enqueue", 2),
    ({"enqueue": {"lr": 0.5}}, "enqueue", {"lr": 0.5}),
    ({"pruner": {"name": "patient", "patience": -1}}, "pruner.patience", -1),
    ({"pruner": {"name": "patient", "pruner": "patient"}}, "pruner.pruner", "patient"),
    ({"pruner": {"name": "patient", "pruner": {"name": "median", "warmup": 1}}}, "pruner.pruner.warmup", 1),
]


def spec(**parts: Any) -> StudySpec:
    return StudySpec.model_validate({"data": {"dataset": "diabetes"}, "space": {"preset": "default"}} | parts)


@pytest.mark.parametrize(("parts", "field", "value"), BAD, ids=range(len(BAD)))
def test_errors_name_field_value_and_what_is_allowed(parts: dict[str, Any], field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**parts)
    (issue,) = validation_issues(caught.value)
    assert (issue.field, issue.value) == (field, value)
    assert issue.allowed
    assert issue.message


@pytest.mark.parametrize("task", METRICS)
def test_any_metric_can_be_the_objective_and_has_a_direction(task: Any) -> None:
    for metric in METRICS[task]:
        level = {"quantile": 0.9} if metric == "pinball" else {}
        made = spec(metric=metric, early_stopping={"monitor": metric}, **level).resolved(task)
        assert made.direction == ("minimize" if metric in LOWER_IS_BETTER else "maximize")
        assert StudySpec.model_validate_json(made.model_dump_json()) == made


def test_a_quantile_is_refused_where_classes_are_predicted() -> None:
    with pytest.raises(ValidationError, match="does not fit a classification task"):
        spec(metric="pinball", quantile=0.9).resolved("classification")


def test_every_recipe_of_a_study_of_a_quantile_has_its_level() -> None:
    fixed = {"space": {"preset": "off"}}
    made = spec(metric="pinball", quantile=0.9, also=["gap", "mae"], **fixed).resolved("regression")
    setting = recipe(made, {})
    assert setting["quantile"] == setting.unregularized()["quantile"] == setting.effective()["quantile"] == 0.9
    assert "quantile" not in recipe(spec(metric="mae", **fixed).resolved("regression"), {})


def test_further_objectives_have_directions_and_no_pruner_and_survive_json() -> None:
    made = spec(metric="f1", also=["gap", "log_loss"])
    assert made.pruner.name == "none"
    assert made.objectives == {"f1": "maximize", "gap": "minimize", "log_loss": "minimize"}
    stored = made.resolved("classification")
    assert StudySpec.model_validate_json(stored.model_dump_json()) == stored
    assert spec(pruner="none", also=["gap"]).also == ("gap",)
    assert (spec().pruner.name, spec(also=[]).pruner.name) == ("median", "median")
    assert [*spec(metric="rmse").objectives] == ["rmse"]


def test_the_inferred_metric_cannot_be_a_further_objective() -> None:
    with pytest.raises(ValidationError, match="has an objective twice"):
        spec(also=["accuracy"]).resolved("classification")
    assert spec(also=["accuracy"], metric="f1").resolved("classification").also == ("accuracy",)


def test_samplers_and_enqueued_settings_survive_json() -> None:
    enqueued = [{"lr": 0.001, "dropout": "off", "lr_schedule": "cosine", "cosine_floor": 0.0}, {}]
    for name in ("tpe", "random", "gp", "cma_es", "nsga2", "grid", "qmc", "lipo", "bobyqa"):
        made = spec(sampler=name, enqueue=enqueued)
        assert StudySpec.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    "pruner",
    [
        "percentile",
        "hyperband",
        {"name": "threshold", "upper": 3.0},
        "patient",
        {"name": "patient", "pruner": "median", "patience": 3},
        {"name": "patient", "pruner": {"name": "threshold", "lower": 0}},
    ],
)
def test_pruners_survive_json(pruner: Any) -> None:
    made = spec(pruner=pruner)
    assert StudySpec.model_validate_json(made.model_dump_json()) == made

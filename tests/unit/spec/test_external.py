"""The spec of a study that a program runs: its space in both forms, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from service.api.issues import validation_issues
from service.search import Search, values
from service.spec.external import ExternalSpec
from service.spec.study import SETTINGS

SPACE = {
    "weight_decay": {"low": 1e-4, "high": 1, "log": True, "off": True},
    "optimizer": ["adamw", "sgd"],
    "momentum": {"low": 0.5, "high": 0.99},
    "custom": {
        "hidden": {"low": 32, "high": 512, "log": True},
        "mix": {"low": 0, "high": 1, "kind": "float", "off": True},
        "norm": ["batch", "off"],
        "layers": 3,
    },
}


def a_spec(**changes: Any) -> ExternalSpec:
    raw = {"executor": "external", "metric": "val_loss", "direction": "minimize", "space": SPACE, **changes}
    return ExternalSpec.model_validate(raw)


def test_it_survives_a_round_trip() -> None:
    spec = a_spec(also={"size": "minimize"})
    stored = json.loads(json.dumps(spec.model_dump(mode="json")))
    assert ExternalSpec.model_validate(stored) == spec
    assert stored["space"]["custom"]["hidden"] == {"low": 32, "high": 512, "log": True, "kind": "int"}
    assert stored["space"]["optimizer"] == ["adamw", "sgd"]


def test_trials_have_the_values_of_the_settings_that_apply() -> None:
    spec = a_spec()
    drawn = [values(spec, params) for params, _ in Search(spec).propose(60)]
    for each in drawn:
        assert each["layers"] == 3
        assert isinstance(each["hidden"], int)
        assert 32 <= each["hidden"] <= 512
        assert each["weight_decay"] == 0.0 or 1e-4 <= float(str(each["weight_decay"])) <= 1
        assert ("momentum" in each) == (each["optimizer"] == "sgd")
        assert each["norm"] in ("batch", "off")
    for name in ("weight_decay", "mix"):
        off = sum(each[name] == 0.0 for each in drawn)
        assert 10 < off < 50, name


def test_a_condition_on_a_setting_that_the_program_does_not_take_is_left_out() -> None:
    spec = a_spec(space={"momentum": {"low": 0.5, "high": 0.99}})
    assert all("momentum" in values(spec, params) for params, _ in Search(spec).propose(5))


def test_regularizers_are_ours_and_what_may_be_off() -> None:
    named = {name for name, setting in a_spec().settings.items() if setting.regularizer}
    assert named == {"weight_decay", "mix", "norm"}


BAD = [
    ({"space": {"weight_decy": 0.1}}, "space.weight_decy", "did you mean weight_decay?"),
    ({"space": {"weight_decay": {"low": 3, "high": 1}}}, "space.weight_decay", "low below high"),
    ({"space": {"weight_decay": "much"}}, "space.weight_decay", "cannot be 'much'"),
    ({"space": {"dropout": {"per_layer": [0.1, 0.2]}}}, "space.dropout", "per layer"),
    ({"space": {"custom": {"dropout": [0.1, 0.2]}}}, "space.custom.dropout", "that this service knows"),
    ({"space": {"custom": {"use_x": [1, 2]}}}, "space.custom.use_x", "not a name"),
    ({"space": {"custom": {"a": {"low": 1, "high": 2, "step": 1}}}}, "space.custom.a.step", "not a known key"),
    ({"space": {"custom": {"a": {"low": 2, "high": 1}}}}, "space.custom.a", "low below high"),
    ({"space": {"custom": {"a": {"low": 0, "high": 1, "log": True}}}}, "space.custom.a.low", "low above 0"),
    ({"space": {"custom": {"a": {"low": 0.5, "high": 2, "kind": "int"}}}}, "space.custom.a", "no integers"),
    ({"space": {"custom": {"a": {"low": 0, "high": 2, "kind": "word"}}}}, "space.custom.a.kind", "int or float"),
    ({"space": {"custom": {"a": [1, 1]}}}, "space.custom.a", "twice"),
    ({"space": {"custom": {"a": {"low": 1}}}}, "space.custom.a.high", "required"),
    ({"space": {"custom": {"a": {"b": 1}}}}, "space.custom.a", ""),
    ({"space": {"custom": 3}}, "space.custom", "an object of settings"),
    ({"space": {"custom": {"a": 3}}}, "space", "nothing to search|no setting to search"),
    ({"direction": None}, "direction", "is needed"),
    ({"metric": "no name"}, "metric", "pattern"),
    ({"also": {"val_loss": "minimize"}}, "also", "again"),
    ({"sampler": "gp"}, "sampler", "workers only"),
    ({"also": {"size": "minimize"}, "sampler": "cma_es"}, "sampler", "one objective only"),
    ({"also": {"size": "minimize"}, "pruner": "median"}, "pruner", "one objective only"),
    ({"budget": {"conclude": "on"}}, "budget.conclude", "workers run"),
    ({"budget": {"trial_seconds": 5}}, "budget.trial_seconds", "workers run"),
    ({"budget": {"trials": 1}, "enqueue": [{}, {}]}, "enqueue", "more entries"),
    ({"enqueue": [{"hidden": 8}]}, "enqueue.0.hidden", ""),
    ({"data": {"dataset": "diabetes"}}, "data", "not a known key"),
]


@pytest.mark.parametrize(("changes", "field", "message"), BAD)
def test_what_is_wrong_is_told_with_its_field(changes: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        a_spec(**changes)
    issue = validation_issues(caught.value, ExternalSpec)[0]
    assert issue.field.startswith(field), issue
    assert any(part in issue.message for part in message.split("|")), issue


def test_known_metrics_need_no_direction() -> None:
    assert a_spec(metric="log_loss", direction=None).sign == 1.0
    assert a_spec(metric="accuracy", direction=None).objectives == {"accuracy": "maximize"}


def test_every_setting_of_ours_can_be_named() -> None:
    for name, setting in SETTINGS.items():
        if setting.searched.model_dump() is not None:
            spec = a_spec(space={name: setting.searched.model_dump(), "custom": {"x": [1, 2]}})
            assert set(spec.domains) == {name, "x"}

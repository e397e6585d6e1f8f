"""Specs of studies: what is accepted, and which errors are reported."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from service.api.issues import validation_issues
from service.spec import SETTINGS, Choices, Fixed, Range, Recipe, Space, StudySpec
from service.spec.domain import possible_values
from service.spec.guidance import warnings_for

DATA = {"data": {"dataset": "diabetes"}}


def spec(**parts: Any) -> StudySpec:
    return StudySpec.model_validate(DATA | parts)


def test_only_the_data_is_required() -> None:
    domains = spec().domains
    assert isinstance(domains["dropout"], Range)
    assert isinstance(domains["lr"], Range)
    assert domains["optimizer"] == Fixed(value="adamw")


def test_every_regularizer_of_the_default_space_can_be_off() -> None:
    for name, setting in SETTINGS.items():
        domain = spec(space={"preset": "default"}).domains[name]
        if setting.regularizer and isinstance(domain, Range):
            assert domain.off, name
        if setting.regularizer and isinstance(domain, Choices):
            assert setting.neutral in domain.choices, name


@pytest.mark.parametrize("name", SETTINGS)
def test_every_declaration_obeys_its_own_bounds(name: str) -> None:
    setting = SETTINGS[name]
    setting.parse(setting.search)
    assert setting.neutral == 0.0 or setting.parse(setting.neutral) == Fixed(value=setting.neutral)
    assert not setting.regularizer or setting.off or setting.kind == "bool" or setting.neutral in setting.words
    assert setting.when is None or setting.when.parent in SETTINGS


def test_a_spec_survives_json() -> None:
    space = {
        "preset": "minimal",
        "l1": 0.1,
        "l2": "off",
        "dropout": {"low": 0.1, "high": 0.5, "off": True, "per_layer": True},
        "weight_decay": ["off", 0.1, 1],
        "lr_schedule": ["step", "constant"],
        "step_gamma": {"low": 0.1, "high": 0.5},
    }
    made = spec(space=space, sampler="random", pruner="successive_halving", early_stopping="off").resolved("regression")
    assert StudySpec.model_validate_json(made.model_dump_json()) == made
    assert made.metric == "rmse"
    assert made.early_stopping is None


def test_presets_determine_omitted_settings() -> None:
    minimal = Space.model_validate({"preset": "minimal", "l1": {"low": 0.1, "high": 0.2}})
    assert isinstance(minimal.dropout, Range)
    assert minimal.normalization == Fixed(value="none")
    assert isinstance(minimal.l1, Range)
    cocktail = Space.model_validate({"preset": "cocktail"})
    assert isinstance(cocktail.mixup, Range)
    assert isinstance(cocktail.cutmix, Range)
    assert cocktail.averaging == Fixed(value="none")
    assert cocktail.class_weights == Fixed(value=1.0)
    assert cocktail.l1 == Fixed(value=0.0)
    off = Space.model_validate({"preset": "off"})
    assert all(isinstance(value, Fixed) for _, value in off if value is not None and not isinstance(value, str))


def test_every_setting_can_be_searched_and_every_regularizer_switched_off() -> None:
    for name, setting in SETTINGS.items():
        assert setting.parse(setting.searched) == setting.searched, name
        if setting.regularizer:
            values = possible_values(setting.searched)
            off = getattr(setting.searched, "off", False) if values is None else {setting.neutral, "off"} & set(values)
            assert off, f"{name} is never off"


def test_label_smoothing_is_refused_for_regression_only() -> None:
    made = spec(space={"label_smoothing": 0.1})
    assert made.resolved("classification").space.label_smoothing == Fixed(value=0.1)
    with pytest.raises(ValidationError, match=r"does not fit a regression task; allowed: off, or a classification task"):
        made.resolved("regression")
    assert spec(space={"label_smoothing": "off"}).resolved("regression").task == "regression"


def test_a_condition_without_its_own_domain_is_searched_by_default() -> None:
    domains = spec(space={"lr_schedule": "step"}).domains
    assert isinstance(domains["step_gamma"], Range)


BAD: list[tuple[dict[str, Any], str, object]] = [
    ({"space": {"dropuot": 0.1}}, "space.dropuot", 0.1),
    ({"space": {"l1": {"low": 2, "high": 1}}}, "space.l1", {"low": 2.0, "high": 1.0}),
    ({"space": {"l1": {"low": 0, "high": 1, "log": True}}}, "space.l1.low", 0.0),
    ({"space": {"l1": {"low": 0.1, "high": 11}}}, "space.l1.high", 11.0),
    ({"space": {"l1": {"low": 0.1}}}, "space.l1.high", None),
    ({"space": {"l1": {"low": 0.1, "high": 1, "lgo": True}}}, "space.l1.lgo", True),
    ({"space": {"l1": {"low": "a", "high": 1}}}, "space.l1.low", "a"),
    ({"space": {"dropout": {"per_layer": [0.1, "b"]}}}, "space.dropout.per_layer.1", "b"),
    ({"space": {"l1": "of"}}, "space.l1", "of"),
    ({"space": {"l1": []}}, "space.l1.choices", []),
    ({"space": {"l1": [0.1, 0.1]}}, "space.l1", [0.1, 0.1]),
    ({"space": {"l1": True}}, "space.l1", True),
    ({"space": {"l1": [[1]]}}, "space.l1.choices.0", [1]),
    ({"space": {"normalization": ["none", "bacth"]}}, "space.normalization.choices.1", "bacth"),
    ({"space": {"normalization": {"low": 0, "high": 1}}}, "space.normalization", {"low": 0.0, "high": 1.0}),
    ({"space": {"lr": "off"}}, "space.lr", "off"),
    ({"space": {"lr": {"low": 0.1, "high": 1, "off": True}}}, "space.lr.off", True),
    ({"space": {"lr": {"low": 0.1, "high": 1, "per_layer": True}}}, "space.lr.per_layer", True),
    ({"space": {"lr": {"per_layer": [0.1]}}}, "space.lr", [0.1]),
    ({"space": {"batch_size": 1.5}}, "space.batch_size", 1.5),
    ({"space": {"dropout": {"per_layer": [0.1, 0.2]}}}, "space.dropout", [0.1, 0.2]),
    ({"space": {"step_gamma": 0.5}}, "space.step_gamma", 0.5),
    ({"space": {"preset": "cocktails"}}, "space.preset", "cocktails"),
    ({"space": 3}, "space", 3),
    ({"model": {"family": "rnn"}}, "model.family", "rnn"),
    ({"model": {"family": ["mlp", "cnn"]}}, "model.family", ["mlp", "cnn"]),
    ({"model": {"blocks": 2}}, "model.blocks", 2),
    ({"model": {"family": "sequence", "heads": 2}}, "model.heads", 2),
    ({"model": {"family": "cnn", "depth": 0}}, "model.depth", 0),
    ({"model": {"family": "cnn", "pooling": "last"}}, "model.pooling", "last"),
    ({"space": {"normalization": ["none", "instance"]}}, "space.normalization", ["none", "instance"]),
    ({"space": {"head_dropout": 0.5}}, "space.head_dropout", 0.5),
    ({"space": {"rotation": 10}}, "space.rotation", 10),
    ({"model": {"family": "sequence"}, "space": {"cutout": [0.1, 0.2]}}, "space.cutout", [0.1, 0.2]),
    ({"model": {"widths": [8], "depth": 2}}, "model.depth", 2),
    ({"model": {"activation": "sine"}}, "model.activation", "sine"),
    ({"sampler": "annealing"}, "sampler", "annealing"),
    ({"sampler": {"name": "annealing"}}, "sampler", "annealing"),
    ({"sampler": {}}, "sampler", {}),
    ({"sampler": 5}, "sampler", 5),
    ({"pruner": None}, "pruner", None),
    ({"early_stopping": 5}, "early_stopping", 5),
    ({"data": {"path": 5}}, "data.path", 5),
    ({"data": {"dataset": "wine", "drop": "x1"}}, "data.drop", "x1"),
    ({"data": {"dataset": "wine", "tagret": "x1"}}, "data.tagret", "x1"),
    ({"data": None}, "data", None),
    ({"model": {"widths": [8, 0]}}, "model.widths.1", 0),
    ({"model": {"widht": 8}}, "model.widht", 8),
    ({"budget": {"epochs": 1.5}}, "budget.epochs", 1.5),
    ({"validation": {"method": "loo"}}, "validation.method", "loo"),
    ({"name": "x" * 201}, "name", "x" * 201),
    ({"name": 5}, "name", 5),
    ({"sampler": {"name": "tpe", "startup_trials": -1}}, "sampler.startup_trials", -1),
    ({"sampler": {"name": "random", "seeds": 1}}, "sampler.seeds", 1),
    ({"pruner": {"name": "median", "min_epochs": 3}}, "pruner.min_epochs", 3),
    ({"budget": {"trials": 0}}, "budget.trials", 0),
    ({"budget": {"trials": "many"}}, "budget.trials", "many"),
    ({"budget": {"seconds": -1}}, "budget.seconds", -1),
    ({"validation": {"test_fraction": 0.6, "valid_fraction": 0.4}}, "validation.valid_fraction", 0.4),
    ({"early_stopping": {"patience": 0}}, "early_stopping.patience", 0),
    ({"task": "ranking"}, "task", "ranking"),
    ({"task": "regression", "metric": "accuracy"}, "metric", "accuracy"),
    ({"name": " "}, "name", " "),
    ({"seed": -1}, "seed", -1),
    ({"data": {}}, "data", {}),
    ({"data": {"dataset": "wine", "path": "x.csv"}}, "data", {"dataset": "wine", "path": "x.csv"}),
    ({"nonsense": 1}, "nonsense", 1),
]


@pytest.mark.parametrize(("parts", "field", "value"), BAD, ids=lambda case: case if isinstance(case, str) else "")
def test_errors_name_field_value_and_what_is_allowed(parts: dict[str, Any], field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**parts)
    (issue,) = validation_issues(caught.value)
    assert (issue.field, issue.value) == (field, value)
    assert issue.allowed
    assert issue.message


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(ValidationError) as caught:
        spec(seed=-1, budget={"trials": 0}, space={"l1": -1})
    assert {issue.field for issue in validation_issues(caught.value)} == {"seed", "budget.trials", "space.l1"}


def test_unknown_keys_get_a_suggestion() -> None:
    with pytest.raises(ValidationError) as caught:
        spec(space={"weight_deacy": 1})
    assert "did you mean weight_decay?" in validation_issues(caught.value)[0].message


def test_a_recipe_reports_only_settings_with_an_effect() -> None:
    made = Recipe({"dropout": (0.1, 0.2), "lr_schedule": "step", "l1": 0.0})
    assert "l1" not in made.said()
    assert "cosine_floor" not in made.said()
    assert made.said()["step_gamma"] == SETTINGS["step_gamma"].neutral
    assert made.regularizers() == ("dropout",)
    assert made.unregularized().regularizers() == ()
    assert made.without("dropout").word("lr_schedule") == "step"
    assert Recipe.from_json(made.to_json()) == made
    assert made.layers("dropout", 2) == (0.1, 0.2)
    assert Recipe({"dropout": 0.3}).layers("dropout", 2) == (0.3, 0.3)
    with pytest.raises(KeyError, match="unknown settings"):
        Recipe({"dropuot": 0.1})


def test_widths_determine_the_shape() -> None:
    assert Recipe({"widths": (8.0, 4.0)}).widths == (8, 4)
    assert Recipe({"width": 16, "depth": 3}).widths == (16, 16, 16)


def test_warnings_for_doubtful_combinations_name_their_source() -> None:
    space = {"normalization": ["none", "batch"], "batch_size": 8, "l2": 0.1, "dropout": 0.5}
    texts = " ".join(warnings_for(spec(space=space)))
    for source in ("Wu and He", "Li et al.", "Loshchilov and Hutter"):
        assert source in texts
    assert "L2 penalty" not in " ".join(warnings_for(spec(space={"preset": "off", "l2": 0.1, "optimizer": "sgd"})))
    constrained = {"preset": "off", "max_norm": 1.0, "mixup": 0.2}
    assert warnings_for(spec(space=constrained)) == []
    (first, second) = warnings_for(spec(space={**constrained, "normalization": "layer"}, task="regression"))
    assert "van Laarhoven" in first
    assert "Yao et al." in second
    assert warnings_for(spec(space={"preset": "off"})) == []
    for model, warned in (
        ({"family": "sequence"}, True),
        ({"family": "sequence", "cell": "transformer"}, False),
        ({}, False),
    ):
        texts = " ".join(warnings_for(spec(model=model, space={"preset": "off", "normalization": "batch"})))
        assert ("Ba et al." in texts) == warned


def test_a_cocktail_has_snapshots_of_whole_cycles_unless_it_stops_early() -> None:
    """Cycles of 15, 30 and 60 epochs; whoever wants early stopping has none of them."""
    whole = spec(space={"preset": "cocktail"})
    assert whole.early_stopping is None
    assert (whole.budget.epochs, whole.budget.trials) == (105, 600)
    assert whole.domains["restart_period"] == Fixed(value=15)
    assert whole.domains["snapshots"] == Choices(choices=(False, True))
    assert "snapshots" in whole.searched
    assert spec(space={"preset": "cocktail"}, budget={"trials": 7}).budget.epochs == 105
    assert spec(space={"preset": "cocktail"}, budget={"epochs": 9}).budget.epochs == 9
    stopped = spec(space={"preset": "cocktail"}, early_stopping={"patience": 5})
    assert stopped.domains["snapshots"] == Fixed(value=False)
    assert stopped.early_stopping is not None
    tuned = spec(space={"preset": "cocktail"}, model={"start_from": 1})
    assert (tuned.domains["snapshots"], tuned.early_stopping is None) == (Fixed(value=False), False)
    for budget in ("long", 7):
        with pytest.raises(ValidationError):
            spec(space={"preset": "cocktail"}, budget=budget)
    other = spec(space={"preset": "cocktail", "lr_schedule": "cosine"}, early_stopping={"patience": 5})
    assert "snapshots" not in other.searched
    for made in (whole, stopped, other):
        stored = made.resolved("classification")
        assert StudySpec.model_validate_json(stored.model_dump_json()) == stored
        assert stored.enqueue == ()
        assert stored.data.scaling == "standard"


def test_snapshots_need_restarts_and_no_early_stopping() -> None:
    space = {"preset": "off", "lr_schedule": "warm_restarts", "snapshots": True}
    assert spec(space=space, early_stopping="off").domains["snapshots"] == Fixed(value=True)
    for parts, field in (
        ({"space": space}, "early_stopping"),
        ({"space": {**space, "snapshots": [False, True]}, "early_stopping": {"patience": 5}}, "early_stopping"),
        ({"space": {"preset": "off", "snapshots": True}, "early_stopping": "off"}, "space.snapshots"),
    ):
        with pytest.raises(ValidationError) as caught:
            spec(**parts)
        (issue,) = validation_issues(caught.value)
        assert issue.field == field


def test_each_kind_of_data_has_its_own_space() -> None:
    images = spec(model={"family": "cnn"}, space={"preset": "images"}).domains
    assert all(isinstance(images[name], Range) for name in ("rotation", "shift", "cutout", "cutmix", "head_dropout"))
    assert images["horizontal_flip"] == Choices(choices=("off", 0.5))
    for name, setting in SETTINGS.items():
        if setting.regularizer and isinstance(domain := images[name], Range):
            assert isinstance(advised := setting.searched, Range)
            assert domain.off, f"{name} cannot be off"
            assert domain.high <= advised.high, f"{name} is stronger in the preset than advised for it alone"
    series = spec(model={"family": "sequence"}, space={"preset": "sequences"}).domains
    assert series["normalization"] == Choices(choices=("none", "layer"))
    assert series["rotation"] == Fixed(value="off")
    for family in ("mlp", "sequence"):
        with pytest.raises(ValidationError) as caught:
            spec(model={"family": family}, space={"preset": "images"})
        (issue,) = validation_issues(caught.value)
        assert "family = cnn" in issue.message


def test_the_plan_names_what_can_occur_alone() -> None:
    """No setting of schedules and optimizers that are not searched. Batches of each size are stacks of their own."""
    raw = {"data": {"dataset": "diabetes"}, "space": {"preset": "off", "batch_size": {"low": 16, "high": 31}}}
    spec = StudySpec.model_validate(raw).resolved("regression")
    assert (spec.searched, spec.stack_keys) == (["batch_size"], 16)
    space = {"preset": "off", "lr_schedule": ["constant", "step"], "batch_size": [16, 32]}
    spec = StudySpec.model_validate(raw | {"space": space}).resolved("regression")
    assert set(spec.searched) == {"batch_size", "lr_schedule", "step_every", "step_gamma"}
    assert spec.stack_keys == 2

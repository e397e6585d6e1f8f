"""The models of a result: what goes in comes out, what earlier versions stored is read, mistakes are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from service import result as models
from service.result import (
    ChoiceBin,
    Curves,
    Discrimination,
    Effect,
    Findings,
    Interval,
    Pictures,
    RangeBin,
    Reading,
    Result,
    Setting,
    StudyResult,
)
from service.result.base import later
from tests.results import curves, interval, result
from tests.unit.report.sources import NOW, classified, traded

HERE = Path(__file__).parent


def stored(name: str) -> dict[str, Any]:
    """A result as the version stored it that had no models yet, of a small study, thinned."""
    found: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return found


def told(whole: Result) -> str:
    return json.dumps(whole.to_json(), allow_nan=False)


@pytest.mark.parametrize("whole", [result(), traded(), result(pictures=classified())], ids=["one", "several", "classes"])
def test_a_result_comes_back_from_its_json(whole: Result) -> None:
    assert Result.model_validate(json.loads(told(whole))) == whole
    assert Result.model_validate_json(told(whole)) == whole


@pytest.mark.parametrize("name", ["regression", "classification"])
def test_what_an_earlier_version_stored_is_kept_to_the_letter_but_for_the_renamed_part(name: str) -> None:
    before = stored(name)
    whole = Result.model_validate(before)
    after = whole.to_json()
    assert after.pop("sparsification") == before.pop("pruning")
    plan = after["provenance"]["plan"]
    assert plan.pop("block_lanes") is plan.pop("taken_over") is plan.pop("builds") is None, "parts that were added later"
    assert after == before
    assert whole.sparsification is not None
    assert [points[0].asked for points in whole.sparsification.values()] == [0.0, 0.0]


def test_a_result_of_the_first_version_lacks_what_came_later() -> None:
    before = {key: part for key, part in stored("regression").items() if key not in later(Result) and key != "pruning"}
    for setting in (before["winner"], before["baseline"], *before["others"]):
        for part in ("train", "gap", "behind_winner", "also"):
            del setting[part]
        setting["test"] = {name: setting["test"][name] for name in ("mean", "low", "high", "n")}
    for row in before["ablation"]:
        for part in ("low", "high", "n"):
            del row[part]
    whole = Result.model_validate(before)
    assert whole.winner.test.mean == before["winner"]["test"]["mean"]
    assert (whole.winner.train, whole.winner.test.seeds, whole.model, whole.front, whole.sparsification) == (None,) * 5
    assert math.isnan(whole.ablation[0].low)
    assert Result.model_validate(whole.to_json()) == whole
    assert whole.to_json()["curves"] is None
    assert not {"front", "discrimination"} & set(whole.to_json())


def test_what_is_known_of_nothing_may_be_an_empty_object() -> None:
    assert Result.model_validate({**stored("regression"), "provenance": {}}).provenance is None


def test_what_a_later_version_adds_is_dropped() -> None:
    added = {**stored("regression"), "of the future": 1}
    assert Result.model_validate(added) == Result.model_validate(stored("regression"))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"metric": "rsme"}, ("metric",)),
        ({"direction": "down"}, ("direction",)),
        ({"winner": {**stored("regression")["winner"], "role": "winner"}}, ("winner", "role")),
        ({"winner": {**stored("regression")["winner"], "test": None}}, ("winner", "test")),
        ({"baseline": {**stored("regression")["baseline"], "also": {"rsme": {}}}}, ("baseline", "also", "rsme", "[key]")),
        ({"rows": {"train": 1, "valid": 1, "test": 1}}, ("rows", "duplicates")),
    ],
)
def test_unknown_words_and_missing_parts_are_refused_by_their_place(changes: dict[str, Any], place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        Result.model_validate(stored("regression") | changes)
    assert place in [error["loc"] for error in refused.value.errors()]


@pytest.mark.parametrize("undefined", [math.nan, math.inf, -math.inf, None])
def test_undefined_numbers_are_nan_here_and_null_in_json(undefined: float | None) -> None:
    made = Interval.model_validate({"mean": undefined, "low": 0, "high": 1.5, "n": 3})
    assert math.isnan(made.mean)
    assert made.to_json() == {
        "mean": None,
        "low": 0.0,
        "high": 1.5,
        "n": 3,
        "seeds": None,
        "se_rows": None,
        "se_seeds": None,
    }
    assert made == Interval.model_validate(made.to_json())


def test_an_interval_is_clear_where_it_excludes_zero() -> None:
    clear = [interval(mean).excludes_zero for mean in (2.0, -2.0, 0.5, 1.0, math.nan)]
    assert clear == [True, True, False, False, False]


def test_curves_are_there_by_their_names() -> None:
    found = curves(1.0)
    assert found.course("rmse") == found.course("loss") == found.loss
    assert found.course("train_loss") == found.train_loss
    with pytest.raises(KeyError):
        found.course("r2")
    with pytest.raises(ValidationError, match="valid number"):
        Curves.of([1], [5], 1.0, {"train_loss": [1.0], "loss": [1.0], "rmse": ["low"]})  # type: ignore[list-item]


def test_bins_are_told_apart_and_values_keep_their_kind() -> None:
    found = [each for effect in Result.model_validate(stored("classification")).effects or () for each in effect.bins]
    assert {type(each) for each in found} == {ChoiceBin, RangeBin}
    choices: list[Any] = [True, 3, 0.5, "off"]
    effect = Effect(
        setting="any", bins=tuple(ChoiceBin(choice=each, n=1, mean=0.0, standard_error=math.nan) for each in choices)
    )
    again = Effect.model_validate_json(json.dumps(effect.to_json()))
    assert [repr(each.choice) for each in again.bins if isinstance(each, ChoiceBin)] == [repr(each) for each in choices]
    recipe = {"nesterov": True, "batch_size": 32, "lr": 0.5, "norm": "batch", "dropout": [0.1, 0.2]}
    setting = Setting.model_validate({**stored("regression")["winner"], "recipe": recipe})
    assert json.dumps(setting.to_json()["recipe"]) == json.dumps(recipe)


def test_a_result_is_that_of_a_study() -> None:
    whole = StudyResult.model_validate(result().of_study(4, "risk", "finished", readings()).to_json())
    assert (whole.id, whole.name, whole.state, whole.test_record) == (4, "risk", "finished", readings())
    assert (whole.test_accesses, whole.verdict) == (2, result().verdict)


def readings() -> tuple[Reading, ...]:
    return (Reading(at=NOW, who="worker 1", purpose="final score"), Reading(at=NOW, who="me", purpose="curiosity"))


def test_a_whole_has_all_of_its_parts_and_no_more() -> None:
    whole = result()
    findings = Findings.model_validate(whole.to_json())
    execution = models.Execution.model_validate(whole.to_json())
    assert whole.model is not None
    assert whole.pictures is not None
    assert Result.of(findings, execution, whole.model, whole.pictures) == whole
    assert "front" not in whole.to_json()
    front = traded().front
    assert front is not None
    assert Result.of(findings.with_front(front), execution, whole.model, whole.pictures).to_json()["front"]
    apart: dict[str, Discrimination] = {
        name: Discrimination.model_validate(each) for name, each in stored("classification")["discrimination"].items()
    }
    assert "discrimination" in findings.with_discrimination(apart).to_json()
    assert "confusion" not in Pictures.model_validate(stored("regression")["pictures"]).to_json()["test"]


def parts(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    if model not in seen:
        seen.add(model)
        yield model
        for name in dir(models):
            other = getattr(models, name)
            if isinstance(other, type) and issubclass(other, models.Part):
                yield from parts(other, seen)


def test_every_part_is_frozen_described_and_nothing_else_may_be_added() -> None:
    for part in parts(StudyResult, set()):
        assert part.model_config.get("frozen"), part
        assert part.__doc__, part
    with pytest.raises(ValidationError, match="frozen"):
        result().verdict = "better"  # type: ignore[misc]

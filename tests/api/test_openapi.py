"""The OpenAPI document: it takes what the service takes, and shows what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from service.api.issues import EXECUTORS
from service.api.studies import EXAMPLES
from service.spec import SETTINGS, StudySpec
from service.store import Store
from tests.api.test_problems import BAD_SUBMITS
from tests.api.test_routes import SMALL, finish, submit
from tests.unit.report.sources import classified, traded


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def schema_of(document: dict[str, Any], name: str) -> Draft202012Validator:
    return Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"})


ACCEPTED: list[dict[str, Any]] = [
    *(example["value"] for example in EXAMPLES.values()),
    StudySpec.model_validate({"data": {"dataset": "diabetes"}}).resolved("regression", 442).model_dump(mode="json"),
    SMALL | {"sampler": "random", "pruner": {"name": "none"}, "early_stopping": "off"},
    SMALL | {"space": {"l1": "off", "l2": 0.1, "weight_decay": ["off", 0.1], "dropout": {"per_layer": [0.1, 0.2, 0.3]}}},
    {
        "executor": "external",
        "metric": "rmse",
        "space": {
            "dropout": [0.1, "off"],
            "lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "custom": {
                "hidden": {"low": 8, "high": 64},
                "norm": ["batch", "off"],
                "depth_of_tree": {"choices": [1, 2]},
                "k": 3,
            },
        },
    },
    SMALL | {"model": {"width": {"low": 8, "high": 64, "log": True}, "depth": [1, 2]}},
]


@pytest.mark.parametrize("spec", ACCEPTED)
def test_what_the_service_takes_fits_the_schema(document: dict[str, Any], spec: dict[str, Any]) -> None:
    kind = EXECUTORS[spec.get("executor", "workers")]
    kind.model_validate(spec)
    assert [error.message for error in schema_of(document, kind.__name__).iter_errors(spec)] == []


def test_what_is_misspelt_does_not_fit_the_schema(document: dict[str, Any]) -> None:
    wrong = [parts for parts, field, _ in BAD_SUBMITS if field in ("space.normalization", "spcae")]
    assert len(wrong) == 2
    external = {"executor": "external", "metric": "rmse"}
    for space in ({"lr": "off"}, {"lrr": 0.1}, {"custom": {"a": {"low": 1}}}, {"dropout": {"per_layer": [0.1]}}):
        assert list(schema_of(document, "ExternalSpec").iter_errors({**external, "space": space})), space
    for parts in [*wrong, {"space": {"lr": "off"}}, {"space": {"dropout": 2}}, {"space": {"lr": {"low": 0.1}}}]:
        assert list(schema_of(document, "StudySpec").iter_errors(SMALL | parts)), parts


def test_every_setting_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    described = {**schemas["Space"]["properties"], **schemas["ModelSpec"]["properties"]}
    for name, setting in SETTINGS.items():
        assert described[name]["description"].startswith(setting.doc)


def test_every_answer_fits_its_schema(client: TestClient, store: Store, document: dict[str, Any]) -> None:
    submitted = submit(client)
    finish(store, traded().model_copy(update={"pictures": classified()}))
    for name, found in (
        ("Submitted", submitted),
        ("StudyPage", client.get("/v1/studies").json()),
        ("Problem", client.get("/v1/studies/9").json()),
        ("StudyResult", client.get("/v1/studies/1/result").json()),
        *(("DatasetOut", each) for each in client.get("/v1/datasets").json()),
    ):
        assert [error.message for error in schema_of(document, name).iter_errors(found)] == []


def test_a_result_is_described_to_its_leaves(document: dict[str, Any]) -> None:
    answer = document["paths"]["/v1/studies/{study_id}/result"]["get"]["responses"]["200"]
    kinds = [each["$ref"].rpartition("/")[2] for each in answer["content"]["application/json"]["schema"]["anyOf"]]
    assert kinds == ["StudyResult", "ExternalStudyResult"]
    schemas = document["components"]["schemas"]
    names = reached(schemas, "StudyResult") | reached(schemas, "ExternalStudyResult")
    assert {"Setting", "Interval", "Curves", "Discrimination", "Delivered", "Provenance", "Reading"} <= names
    for name in names:
        assert schemas[name]["description"], name
        assert list(vague(schemas[name])) == [], name


def test_a_result_that_is_misspelt_does_not_fit_its_schema(
    client: TestClient, store: Store, document: dict[str, Any]
) -> None:
    submit(client)
    finish(store)
    found = client.get("/v1/studies/1/result").json()
    schema = schema_of(document, "StudyResult")
    assert not list(schema.iter_errors(found))
    mistakes: list[dict[str, Any]] = [
        {"metric": "rsme"},
        {"winner": {**found["winner"], "test": {"mean": 1.0}}},
        {"curves": {"trial 3": {**found["curves"]["trial 3"], "rmse": "low"}}},
        {"trials": {}},
    ]
    for wrong in mistakes:
        assert list(schema.iter_errors(found | wrong)), wrong


def reached(schemas: dict[str, Any], name: str) -> set[str]:
    """Names of all schemas that one is made of, itself among them."""
    found, left = set(), [name]
    while left:
        if (here := left.pop()) not in found:
            found.add(here)
            left += [reference.rpartition("/")[2] for reference in references(schemas[here])]
    return found


def vague(part: Any, place: str = "") -> Iterator[str]:
    """Places where anything would do: objects without keys or a kind of values, arrays without items, no type at all."""
    if isinstance(part, list):
        for index, each in enumerate(part):
            yield from vague(each, f"{place}/{index}")
    if not isinstance(part, dict):
        return
    if part.get("type") == "object" and not (part.get("properties") or isinstance(part.get("additionalProperties"), dict)):
        yield place
    if part.get("type") == "array" and not (part.get("items") or part.get("prefixItems")):
        yield place
    for name, each in part.get("properties", {}).items():
        if not {"type", "$ref", "anyOf", "enum", "const"} & set(each):
            yield f"{place}/{name}"
    for name, each in part.items():
        yield from vague(each, f"{place}/{name}")


def test_every_route_tells_its_problems_and_no_reference_dangles(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert list(answer["content"]) == ["application/problem+json"], (path, method, status)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)

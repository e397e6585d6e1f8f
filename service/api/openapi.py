"""The OpenAPI document, completed with what pydantic can't derive.

A setting may be written in a short form (`0.1`, `[none, batch]`, `{low, high}`), which its validator turns into a domain;
so may a sampler's name and `off`. The schema describes these forms, from the same table that validates them, so that
generated clients and editors accept what the service accepts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.access import COOKIE, OPEN
from service.api.problems import EXAMPLE, Problem, answers
from service.spec import OFF, SETTINGS
from service.spec.setting import Setting

Schema = dict[str, Any]


def describe(app: FastAPI, *, tokens: bool) -> None:
    """Set the OpenAPI document of ``app``, generated when it is first requested; ``tokens`` if requests need one."""

    def document() -> Schema:
        if app.openapi_schema is None:
            plain = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = _with_tokens(_completed(plain)) if tokens else _completed(plain)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _with_tokens(document: Schema) -> Schema:
    """The document of a service that asks for tokens: in a header, or in the cookie of a browser that has signed in."""
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token that `regsearch token create` has made."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    }
    for path, operations in document["paths"].items():
        if path not in OPEN:
            for operation in operations.values():
                operation["security"] = [{"token": []}, {"cookie": []}]
                operation["responses"] |= {str(status): answer for status, answer in answers(401, 403).items()}
    return document


def _completed(document: Schema) -> Schema:
    schemas = document["components"]["schemas"]
    schemas[Problem.__name__] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schemas[Problem.__name__].pop("$defs"))
    schemas[Problem.__name__]["examples"] = [EXAMPLE]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for part in ("Space", "ModelSpec"):
        properties = schemas[part]["properties"]
        for name in properties:
            if name in SETTINGS:
                properties[name] = _setting(SETTINGS[name])
    for part in ("StudySpec", "ExternalSpec"):
        study = schemas[part]["properties"]
        for name in ("sampler", "pruner"):
            tags = list(study[name]["discriminator"]["mapping"])
            study[name] = {"anyOf": [{"enum": tags, "type": "string"}, study[name]]}
    schemas["StudySpec"]["properties"]["early_stopping"]["anyOf"].append({"const": OFF})
    space = schemas["ExternalSpec"]["properties"]["space"]
    schemas["ExternalSpec"]["properties"]["space"] = _external_space(space["description"])
    return document


def _external_space(description: str) -> Schema:
    """The forms of the space of a study that a program runs."""
    alone = {name: dataclasses.replace(setting, per_layer=False) for name, setting in SETTINGS.items()}
    value: Schema = {"type": ["boolean", "number", "string"]}
    limits: Schema = {"low": {"type": "number"}, "high": {"type": "number"}, "kind": {"enum": ["int", "float"]}}
    flags: Schema = {"log": {"type": "boolean"}, "off": {"type": "boolean"}}
    ranges = {
        "type": "object",
        "properties": {**limits, **flags},
        "required": ["low", "high"],
        "additionalProperties": False,
    }
    choices = {"type": "array", "items": value, "minItems": 1}
    named = {"type": "object", "properties": {"choices": choices}, "required": ["choices"], "additionalProperties": False}
    own = {"type": "object", "additionalProperties": {"anyOf": [value, choices, named, ranges]}}
    known = {name: _setting(setting) for name, setting in alone.items()}
    return {
        "type": "object",
        "description": description,
        "properties": {**known, "custom": own},
        "additionalProperties": False,
    }


def _setting(setting: Setting) -> Schema:
    """The forms in which one setting may be written."""
    value = _value(setting)
    forms = [value, {"type": "array", "items": value, "minItems": 1}, *_objects(setting, value), {"type": "null"}]
    condition = f" Only if {setting.when.parent} = {' or '.join(map(str, setting.when.values))}." if setting.when else ""
    return {"anyOf": forms, "description": setting.doc + condition, "default": setting.search.model_dump()}


def _objects(setting: Setting, value: Mapping[str, Any]) -> Iterator[Schema]:
    yield {"type": "object", "properties": {"choices": {"type": "array", "items": value}}, "required": ["choices"]}
    if setting.kind in ("word", "bool"):
        return
    flags = ["log", *(["off"] if setting.off else []), *(["per_layer"] if setting.per_layer else [])]
    number = _number(setting)
    properties = {"low": number, "high": number, **{flag: {"type": "boolean"} for flag in flags}}
    yield {"type": "object", "properties": properties, "required": ["low", "high"], "additionalProperties": False}
    if setting.per_layer:
        yield {
            "type": "object",
            "properties": {"per_layer": {"type": "array", "items": number, "minItems": 1}},
            "required": ["per_layer"],
            "additionalProperties": False,
        }


def _value(setting: Setting) -> Schema:
    match setting.kind:
        case "word":
            return {"type": "string", "enum": [*setting.words, *([OFF] if setting.off else [])]}
        case "bool":
            return {"type": "boolean"}
        case "int" | "float":
            number = _number(setting)
            return {"anyOf": [number, {"const": OFF}]} if setting.off else number


def _number(setting: Setting) -> Schema:
    bounds = {"minimum": setting.low, "maximum": setting.high}
    kind = "integer" if setting.kind == "int" else "number"
    return {"type": kind, **{name: bound for name, bound in bounds.items() if bound is not None}}

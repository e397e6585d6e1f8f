"""Pydantic's errors as `Issue`s: the field as a user would write it, its value, and what is allowed instead.

The spec's models are consulted to keep the tags of unions, which are not keys, out of paths. Independent of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from service.errors import InvalidInput, Issue
from service.spec import Range, StudySpec
from service.spec.external import ExternalSpec
from service.suggestions import meant

_KINDS: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer",
    "int_type": "an integer",
    "list_type": "a list",
    "string_type": "text",
    "tuple_type": "a list",
    "value_error": "a file with a name, in a multipart/form-data request",
}
"""What is allowed, by the type of the error. `value_error` has one source: an upload whose part is not a file."""

_OBJECTS = frozenset({"model_attributes_type", "model_type", "dict_type"})
_SIGNS = {"greater_than_equal": "≥", "greater_than": ">", "less_than_equal": "≤", "less_than": "<"}
_MOST = 50
"""Errors that an answer lists."""
EXECUTORS: Mapping[str, type[BaseModel]] = {"workers": StudySpec, "external": ExternalSpec}
"""The spec of a study by who trains: the tags of the union that a submit takes."""
_PLACES = ("body", "query", "path", "header")


def validated(document: Mapping[str, Any]) -> StudySpec:
    """A study whose parts were changed after it had been validated.

    Raises:
        InvalidInput: They do not go together.
    """
    try:
        return StudySpec.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(validation_issues(error)) from None


def validation_issues(error: ValidationError, spec: type[BaseModel] = StudySpec) -> list[Issue]:
    """The errors of a failed validation of a ``spec``."""
    return _some([_issue(each, list(each["loc"]), spec) for each in error.errors(include_url=False)[: _MOST + 1]])


def request_issues(found: Sequence[Mapping[str, Any]], body: type[BaseModel]) -> list[Issue]:
    """The errors of a request whose body should have been a ``body``."""
    issues = []
    for error in found[: _MOST + 1]:
        place, *parts = error["loc"] or ("body",)
        assert place in _PLACES, f"not a place in a request: {place!r}"
        root = body
        if place == "body" and parts and parts[0] in EXECUTORS:
            root = EXECUTORS[str(parts.pop(0))]
        issues.append(_issue(error, parts, root if place == "body" else None))
    return _some(issues)


def _some(issues: list[Issue]) -> list[Issue]:
    """The first of many errors, and that there are more."""
    if len(issues) <= _MOST:
        return issues
    return [*issues[:_MOST], Issue("body", f"has more errors; these are the first {_MOST}", None, None)]


def _issue(error: Mapping[str, Any], parts: Sequence[int | str], root: type[BaseModel] | None) -> Issue:
    kind, context = error["type"], error.get("ctx") or {}
    model, names = _walk(parts, root)
    field = ".".join(names) or "body"
    value = context.get("value", error.get("input"))
    match kind:
        case "extra_forbidden":
            return _unknown_key(field, str(parts[-1]), value, model)
        case "missing":
            return Issue(field, "is required", None, _wanted(model, parts))
        case "setting":
            return _setting(field, context, error["msg"])
        case "union_tag_invalid" | "union_tag_not_found" | "model_attributes_type" if tags := _tags(model, parts):
            return Issue(field, f"must be one of {', '.join(tags)}", context.get("tag", value), tags)
        case "literal_error" | "enum":
            words = _words(context["expected"])
            return Issue(field, f"must be one of {', '.join(words)}", value, words)
    if key := context.get("key"):
        field = f"{field}.{key}" if names else key
    message, allowed = _wording(kind, context, error["msg"], _inner(model, parts))
    return Issue(field, message, value, allowed)


def _wording(kind: str, context: Mapping[str, Any], text: str, inner: type[BaseModel] | None) -> tuple[str, object]:
    """The message of an error that is not about a key, and what is allowed; ``text`` is pydantic's own message."""
    if kind in _OBJECTS:
        allowed: object = f"an object with the keys {', '.join(inner.model_fields)}" if inner else "an object"
        return f"must be {allowed}", allowed
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}", _KINDS[kind]
    if kind in _SIGNS:
        allowed = f"{_SIGNS[kind]} {next(iter(context.values()))}"
        return f"must be {allowed}", allowed
    for name, words in (("max_length", "at most"), ("min_length", "at least")):
        if name in context:
            unit = "characters" if kind.startswith("string") else "values"
            return f"must have {words} {context[name]} {unit}", f"{words} {context[name]} {unit}"
    return text, context.get("allowed", context.get("pattern", text))


def _setting(field: str, context: Mapping[str, Any], message: str) -> Issue:
    """An error of `service.spec.setting`, whose key leads from the setting to the invalid part of its domain."""
    keys = [key for key in context["key"].split(".") if key]
    value = context["value"]
    for key in keys:
        match value:
            case Mapping() if key in value:
                value = value[key]
            case list() | tuple() if key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            case _:
                # `choices` where a bare list was given, or the union member that was tried: not keys that the user wrote.
                continue
    tried = keys[:-1] if keys and keys[-1] in ("bool", "int", "float", "str") else keys
    place = ".".join([field, *tried])
    message = message.removeprefix(f"{context['key']}: ") if keys else message
    if "Extra inputs are not permitted" in message:
        return _unknown_key(place, keys[-1], value, Range)
    if "Field required" in message:
        for key in value if isinstance(value, Mapping) else ():
            if key != keys[-1] and meant(str(key), [keys[-1]]):
                return _unknown_key(f"{place.removesuffix(keys[-1])}{key}", str(key), value[key], Range)
        return Issue(place, "is required", None, context["allowed"])
    if tried != keys:
        message = f"is not a single value; allowed: {context['allowed']}"
    return Issue(place, message, value, context["allowed"])


def _unknown_key(field: str, key: str, value: object, model: type[BaseModel] | None) -> Issue:
    known = sorted(model.model_fields) if model else []
    close = meant(key, known)
    hint = f"; did you mean {close}?" if close else ""
    return Issue(field, f"is not a known key{hint}", value, known)


def _wanted(model: type[BaseModel] | None, parts: Sequence[int | str]) -> str:
    """A description of the value that a missing field requires."""
    inner = _inner(model, parts)
    if inner is not None:
        return f"an object with the keys {', '.join(inner.model_fields)}"
    field = model.model_fields.get(str(parts[-1])) if model and parts else None
    return (field.description if field else None) or "a value"


def _walk(parts: Sequence[int | str], root: type[BaseModel] | None) -> tuple[type[BaseModel] | None, list[str]]:
    """Follow an error's location down from ``root``; tags of unions, which are no keys, are left out of the path.

    Returns:
        The model that holds the last key (None outside of a model), and the path as a user would write it.
    """
    model = root
    names: list[str] = []
    entered = False
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        is_tag = entered and model is not None and isinstance(part, str) and _is(model, part)
        entered = False
        if is_tag:
            continue
        names.append(str(part))
        if model is not None and isinstance(part, str) and part in model.model_fields and not last:
            inner = _model_of(model.model_fields[part].annotation, parts[index + 1])
            model, entered = inner or model, inner is not None
    return model, names


def _inner(model: type[BaseModel] | None, parts: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that the last key requires, if it requires one."""
    if model is None or not parts:
        return model
    field = model.model_fields.get(str(parts[-1]))
    return _model_of(field.annotation, "") if field else None


def _tags(model: type[BaseModel] | None, parts: Sequence[int | str]) -> list[str]:
    """The names in the tagged union that a key holds."""
    field = model.model_fields.get(str(parts[-1])) if model and parts else None
    members = _flatten(field.annotation) if field else []
    return [str(kind.model_fields["name"].default) for kind in members if "name" in getattr(kind, "model_fields", {})]


def _is(model: type[BaseModel], tag: str) -> bool:
    """Whether ``tag`` is the model's name in a tagged union."""
    name = model.model_fields.get("name")
    return name is not None and name.default == tag


def _model_of(annotation: Any, following: int | str) -> type[BaseModel] | None:
    """The model in a field's annotation; of a union the one whose tag comes next, or the first."""
    models = [kind for kind in _flatten(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    tagged = [kind for kind in models if isinstance(following, str) and _is(kind, following)]
    return next(iter(tagged or models), None)


def _flatten(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", None)
    return [annotation] if inner is None else [kind for part in inner for kind in _flatten(part)]


def _words(expected: str) -> list[str]:
    """The words in pydantic's list of them: `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", expected)

"""Settings that no group declares: those of a user's own program, and the arguments of a module of theirs.

Their kind follows from how their domain is written; checks of their own are the caller's.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from pydantic_core import PydanticCustomError

from service.spec.domain import OFF, Choices, Domain, Fixed, Range, Scalar
from service.spec.setting import Setting, refuse


class CustomRange(Range):
    """A range of a free setting; integers if its bounds are written as such, or ``kind`` says so."""

    kind: Literal["int", "float"] = "float"


_ANY = "a value, a range {low, high} or a list of choices"

FREE = Setting(
    group="custom", doc="A setting of the user's own.", kind="float", low=-math.inf, high=math.inf, neutral=0.0,
    search=Fixed(value=0.0), off=True,
)  # fmt: skip


def free_domain(field: str, given: Any) -> Domain:
    """A checked domain of a free setting; the error of a wrong one is on ``field``."""
    return parsed(field, FREE, _with_kind(field, given))


def _with_kind(field: str, given: Any) -> Any:
    """A domain with its kind where it is a range; values and choices, of any type, as they are."""
    match given:
        case Range():
            return given
        case {"low": low, "high": high, **rest}:
            whole = all(isinstance(bound, int) and not isinstance(bound, bool) for bound in (low, high))
            kind = rest.get("kind", "int" if whole else "float")
            if kind not in ("int", "float"):
                refuse(f"{field}.kind", "must be int or float", kind, "int, float")
            if kind == "int" and not all(isinstance(bound, int | float) and bound == int(bound) for bound in (low, high)):
                refuse(field, "has bounds that are no integers", [low, high], "integers, or kind: float")
            bounds = Range.model_fields.keys() & rest.keys()
            if unknown := sorted(map(str, rest.keys() - bounds - {"kind"})):
                refuse(f"{field}.{unknown[0]}", "is not a known key", rest[unknown[0]], "low, high, log, off, kind")
            flags = {name: rest[name] for name in bounds}
            return CustomRange.model_validate({"low": low, "high": high, **flags, "kind": kind})
        case {"choices": list() | tuple() as choices, **rest} if not rest:
            return Choices(choices=tuple(choices))
        case list() | tuple():
            return Choices.model_validate({"choices": given})
        case bool() | int() | float() | str():
            return Fixed(value=given)
    return given


def parsed(field: str, setting: Setting, given: Any) -> Domain:
    """A checked domain; the error of a wrong one is on ``field``."""
    if setting is FREE and isinstance(given, Choices | Fixed):
        if isinstance(given, Choices) and len(set(map(str, given.choices))) < len(given.choices):
            refuse(field, "has the same choice twice", list(given.choices), "each choice once")
        return given
    try:
        domain = setting.parse(given)
    except PydanticCustomError as error:
        context = error.context or {}
        place = ".".join(part for part in (field, str(context.get("key", ""))) if part)
        allowed = _ANY if setting is FREE else str(context.get("allowed"))
        refuse(place, str(context.get("message", error)), context.get("value"), allowed)
    assert domain is not None, "None is left out before"
    return domain


def free_setting(group: str, domain: Domain) -> Setting:
    """The declaration that a free setting of this domain would have; where it can be off, it is a regularizer."""
    own = dataclasses.replace(FREE, group=group)
    match domain:
        case CustomRange(kind=kind, off=off):
            neutral: Scalar = 0 if kind == "int" else 0.0
            return dataclasses.replace(own, kind=kind, neutral=neutral, regularizer=off)
        case Choices(choices=choices) if OFF in choices:
            return dataclasses.replace(own, neutral=OFF, regularizer=True)
    return dataclasses.replace(own, off=False)

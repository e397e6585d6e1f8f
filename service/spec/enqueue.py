"""Enqueued trials: mappings from settings to values, which must be in the study's space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from pydantic_core import PydanticCustomError

from service.spec.domain import OFF, Choices, Domain, Fixed, PerLayer, Range, Scalar
from service.spec.setting import Setting

Enqueued = Mapping[str, Scalar | tuple[float, ...]]


def check_enqueued(
    index: int, given: Enqueued, domains: Mapping[str, Domain], settings: Mapping[str, Setting], depth: int
) -> None:
    """Check that an enqueued trial is in the space.

    Args:
        index: Position of the trial in ``enqueue``.
        given: Its settings.
        domains: Of the study.
        settings: All settings by name.
        depth: Largest number of hidden layers.

    Raises:
        PydanticCustomError: A value is not in the space; the error names field, value and what is allowed.
    """
    for name, value in given.items():
        field = f"enqueue.{index}.{name}"
        if name not in domains:
            _refuse(field, "is not a setting of this space", value, ", ".join(domains))
        when = settings[name].when
        if when is not None and not _holds(given, domains, when.parent, when.values):
            allowed = f"only together with {when.parent} = {' or '.join(map(str, when.values))}"
            _refuse(field, "would have no effect", value, allowed)
        _check_value(field, value, domains[name], settings[name], depth)


def _holds(given: Enqueued, domains: Mapping[str, Domain], parent: str, values: tuple[Scalar, ...]) -> bool:
    domain = domains[parent]
    fixed = domain.value if isinstance(domain, Fixed) else None
    return given.get(parent, fixed) in values


def _check_value(field: str, value: Any, domain: Domain, setting: Setting, depth: int) -> None:
    match domain:
        case Fixed(value=only):
            good, allowed = _same(value, only), f"{only}, the fixed value in this space"
        case PerLayer(per_layer=only):
            good, allowed = value == only, f"{list(only)}, the fixed values in this space"
        case Choices(choices=choices):
            good, allowed = any(_same(value, choice) for choice in choices), ", ".join(map(str, choices))
        case Range(low=low, high=high, per_layer=per_layer):
            allowed = f"from {low:g} to {high:g}" + (f", or {OFF}" if domain.off else "")
            values = value if isinstance(value, tuple) and per_layer and len(value) == depth else (value,)
            good = (value == OFF and domain.off) or all(_is_within(each, low, high, setting) for each in values)
            allowed += f"; or {depth} such values" if per_layer else ""
        case _:
            assert_never(domain)
    if not good:
        _refuse(field, "is not in this space", value, allowed)


def _same(a: Any, b: Any) -> bool:
    """Whether two scalars are equal; true does not equal 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _is_within(value: Any, low: float, high: float, setting: Setting) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and low <= value <= high and (setting.kind == "float" or float(value).is_integer())


def _refuse(field: str, message: str, value: Any, allowed: str) -> None:
    context = {"message": message, "key": field, "value": value, "allowed": allowed}
    raise PydanticCustomError("study", "{message}; allowed: {allowed}", context)

"""Conversions between a spec and Optuna's parameters: distributions, their union over all conditions, recipes. Pure.

A range with ``off`` has a further parameter, ``use_<setting>``; one with ``per_layer`` has ``<setting>_1``, ``_2`` ….
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from service.spec import OFF, Choices, Domain, Fixed, PerLayer, Range, Recipe, Value
from service.spec.domain import possible_values
from service.spec.searchable import Searchable

Params = Mapping[str, Any]
Drawn = tuple[dict[str, Any], dict[str, BaseDistribution]]
"""The parameters of a trial, and their distributions."""


def distributions(spec: Searchable, params: Params) -> dict[str, BaseDistribution]:
    """Distributions of the parameters whose conditions hold given ``params`` drawn so far, as in define-by-run."""
    found: dict[str, BaseDistribution] = {}
    for name in spec.searched:
        domain = spec.domains[name]
        if not _ready(spec, name, domain, params):
            continue
        if isinstance(domain, Range) and domain.off:
            found[f"use_{name}"] = CategoricalDistribution((True, False))
            if not params.get(f"use_{name}", False):
                continue
        found.update(_own(spec, name, domain, params))
    return found


def recipe(spec: Searchable, params: Params) -> Recipe:
    """The value of every setting for a trial with these parameters."""
    return Recipe(values(spec, params))


def values(spec: Searchable, params: Params) -> dict[str, Value]:
    """The values of those settings whose conditions hold in a trial with these parameters."""
    found: dict[str, Value] = {}
    if spec.widths is not None:
        found["widths"] = tuple(float(width) for width in spec.widths)
    if spec.quantile is not None:
        found["quantile"] = spec.quantile
    for name, domain in spec.domains.items():
        if _condition_holds(spec, name, params):
            found[name] = _value(spec, name, domain, params)
    return found


def _own(spec: Searchable, name: str, domain: Domain, params: Params) -> dict[str, BaseDistribution]:
    match domain:
        case Choices(choices=choices) if len(choices) > 1:
            return {name: CategoricalDistribution(choices)}
        case Range(per_layer=True):
            depth = _depth(spec, params)
            return {f"{name}_{layer + 1}": _numeric(spec, name, domain) for layer in range(depth)}
        case Range():
            return {name: _numeric(spec, name, domain)}
        case Choices() | Fixed() | PerLayer():
            return {}


def _numeric(spec: Searchable, name: str, domain: Range) -> BaseDistribution:
    kind = spec.settings[name].kind
    if kind == "int":
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    assert kind == "float", f"{name} is a {kind}, which has no range"
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _value(spec: Searchable, name: str, domain: Domain, params: Params) -> Value:
    """The value of one setting; `off` becomes its neutral value."""
    setting = spec.settings[name]
    match domain:
        case Fixed(value=value):
            drawn: Value = value
        case PerLayer(per_layer=values):
            return values[: _depth(spec, params)]
        case Choices(choices=choices):
            drawn = params.get(name, choices[0])
        case Range(off=True) if not params.get(f"use_{name}", False):
            drawn = OFF
        case Range(per_layer=True):
            return tuple(float(params[f"{name}_{layer + 1}"]) for layer in range(_depth(spec, params)))
        case Range():
            drawn = params[name]
        case _:
            assert_never(domain)
    return setting.neutral if drawn == OFF and setting.off else drawn


def _condition_holds(spec: Searchable, name: str, params: Params) -> bool:
    when = spec.settings[name].when
    if when is None:
        return True
    return _value(spec, when.parent, spec.domains[when.parent], params) in when.values


def _ready(spec: Searchable, name: str, domain: Domain, params: Params) -> bool:
    """Whether everything that a setting depends on has been drawn, and its condition holds."""
    if isinstance(domain, Range) and domain.per_layer and not _decided(spec, "depth", params):
        return False
    when = spec.settings[name].when
    return when is None or (_decided(spec, when.parent, params) and _condition_holds(spec, name, params))


def _decided(spec: Searchable, name: str, params: Params) -> bool:
    match spec.domains.get(name):
        case Range():
            return name in params
        case Choices(choices=choices):
            return len(choices) == 1 or name in params
        case Fixed() | PerLayer() | None:
            return True


def _depth(spec: Searchable, params: Params) -> int:
    if spec.widths is not None:
        return len(spec.widths)
    depth = spec.domains.get("depth")
    if depth is None:
        return spec.deepest
    value = _value(spec, "depth", depth, params)
    assert isinstance(value, int | float)
    return int(value)


def whole(spec: Searchable) -> dict[str, BaseDistribution]:
    """The distributions of all parameters that a trial may have: the space without conditions."""
    found: dict[str, BaseDistribution] = {}
    deepest = {"depth": spec.deepest}
    for name, domain in spec.domains.items():
        if not _can_matter(spec, name):
            continue
        if isinstance(domain, Range) and domain.off:
            found[f"use_{name}"] = CategoricalDistribution((True, False))
        found.update(_own(spec, name, domain, deepest))
    return found


def _can_matter(spec: Searchable, name: str) -> bool:
    """Whether a setting's condition can hold somewhere in the space."""
    when = spec.settings[name].when
    if when is None:
        return True
    values = possible_values(spec.domains[when.parent])
    return _can_matter(spec, when.parent) and (values is None or not set(values).isdisjoint(when.values))


def walked(spec: Searchable, choose: Callable[[str, BaseDistribution], Any]) -> Drawn:
    """A trial's parameters, conditions first, each with the value that ``choose(name, distribution)`` returns."""
    params: dict[str, Any] = {}
    kinds: dict[str, BaseDistribution] = {}
    while new := {name: kind for name, kind in distributions(spec, params).items() if name not in params}:
        for name, kind in new.items():
            params[name] = choose(name, kind)
            kinds[name] = kind
    return params, kinds


def placed(kind: BaseDistribution, place: float) -> Any:
    """The ``place``-quantile of a distribution, with ``place`` in [0, 1)."""
    match kind:
        case CategoricalDistribution(choices=choices):
            return choices[min(int(place * len(choices)), len(choices) - 1)]
        case IntDistribution(low=low, high=high, log=log):
            lowest, highest = low - 0.5, high + 0.5
            value = lowest * (highest / lowest) ** place if log else lowest + place * (highest - lowest)
            return min(max(round(value), low), high)
        case FloatDistribution(low=low, high=high, log=log):
            value = low * (high / low) ** place if log else low + place * (high - low)
            return min(max(value, low), high)
        case _:
            raise AssertionError(f"no setting has a {type(kind).__name__}")

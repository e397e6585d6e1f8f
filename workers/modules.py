"""Modules of the users' own on a worker: what the operator allows is imported, and published with its signature.

`torchvision.models:NAME` and `timm:NAME` name the networks of these packages, which take their numbers of inputs and
outputs in ways of their own; every other module is called as ``module(inputs, outputs, **arguments)``.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from service.spec.modules import Argument, Kind, ModuleSchema
from workers.plain.foreign import register, sentence, source_hash
from workers.plain.packages import PACKAGES, Makes

log = logging.getLogger(__name__)

_KINDS: Mapping[type, Kind] = {bool: "bool", int: "int", float: "float", str: "word"}
_GIVEN = ("inputs", "outputs")


def published(names: Sequence[str]) -> list[ModuleSchema]:
    """Import modules and register them; what can't be used has an ``error``."""
    if names and not torch.cuda.is_available():
        # It can't be stacked, and is no faster for the short series of small networks.
        torch.backends.cuda.enable_flash_sdp(False)
    return [_published(name) for name in names]


def _published(name: str) -> ModuleSchema:
    try:
        make = _found(name)
        arguments = _arguments(make)
    except (Exception, SystemExit) as error:  # foreign code, of whatever kind
        reason = str(error) if isinstance(error, _Unusable) else sentence(error)
        log.warning("module %s can't be used: %s", name, reason)
        return ModuleSchema(name=name, error=reason)
    register(name, make)
    return ModuleSchema(name=name, about=_about(make), arguments=arguments, source_sha256=source_hash(make))


class _Unusable(Exception):
    """Why a module can't be used."""


def _found(name: str) -> Makes:
    """What builds networks of a module."""
    package, colon, attribute = name.partition(":")
    if not (package and colon and attribute):
        raise _Unusable("is not written as package.module:Class")
    if package in PACKAGES:
        return PACKAGES[package](attribute)
    found: Makes | None = getattr(importlib.import_module(package), attribute, None)
    if not callable(found):
        raise _Unusable(f"{package} has no class {attribute}")
    missing = [each for each in _GIVEN if each not in inspect.signature(found).parameters]
    if missing:
        raise _Unusable(f"takes no {' and no '.join(missing)}: it has to be {attribute}(inputs, outputs, **arguments)")
    return found


def _arguments(described: Callable[..., Any]) -> dict[str, Argument]:
    """The parameters that a study may set, by name."""
    initializer = described.__init__ if isinstance(described, type) else described  # type: ignore[misc]
    hints = get_type_hints(initializer)
    arguments: dict[str, Argument] = {}
    for name, parameter in inspect.signature(described).parameters.items():
        if name in _GIVEN or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        found = _argument(hints.get(name), None if required else parameter.default, required=required)
        if found is not None:
            arguments[name] = found
        elif required:
            raise _Unusable(f"needs the argument {name}, which is no number, truth value or text; give it a default")
    return arguments


def _argument(annotation: Any, default: Any, *, required: bool) -> Argument | None:
    """An argument as it can be given in JSON; None if it can't."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [each for each in get_args(annotation) if each is not types.NoneType]
        annotation = kinds[0] if len(kinds) == 1 else None
    if annotation is None:
        annotation = type(default)
    known = default if isinstance(default, bool | int | float | str) else None
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        kind = _KINDS.get(type(choices[0]))
        return kind and Argument(kind=kind, choices=choices, default=known, required=required)
    kind = _KINDS.get(annotation) if isinstance(annotation, type) else None
    return kind and Argument(kind=kind, default=known, required=required)


def _about(described: Callable[..., Any]) -> str:
    text = inspect.getdoc(described) if described.__doc__ else ""
    return (text or "").split("\n\n")[0][:1000]

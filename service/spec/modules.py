"""Modules of the users' own: what workers publish of them, and the arguments that a study gives or searches.

A worker reads a module's signature; the API validates arguments against what was published, and imports neither torch nor
foreign code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.errors import Issue
from service.spec.domain import Choices, Domain, Fixed, Range, Scalar
from service.spec.free import CustomRange, free_domain
from service.spec.setting import refuse
from service.suggestions import meant

ARGUMENT = "args."
"""How the names of arguments begin in recipes and among Optuna's parameters."""
NAME = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.-]*$"
"""`package.module:Class`."""

Kind = Literal["bool", "int", "float", "word"]
Layout = Literal["flat", "image", "sequence"]


class Argument(BaseModel):
    """A parameter of a module that a study may set or search."""

    model_config = ConfigDict(frozen=True)

    kind: Kind = Field(description="`word`: text, or one of `choices`.")
    choices: tuple[Scalar, ...] | None = Field(None, description="The values that its annotation allows, if it lists them.")
    default: Scalar | None = Field(None, description="Null if there is none, or if it is None.")
    required: bool = False


class ModuleSchema(BaseModel):
    """What a worker publishes of a module that its operator allows."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="`package.module:Class`, as studies name it.")
    about: str = Field("", description="The first paragraph of its docstring.")
    arguments: dict[str, Argument] = Field({}, description="Of its `__init__`, beside `inputs` and `outputs`.")
    source_sha256: str | None = Field(None, description="SHA-256 of the file that defines it.")
    error: str | None = Field(None, description="Why it can't be used; null if it can.")


def _parsed(raw: Any) -> Any:
    """Arguments as users write them: values, ranges or lists by name."""
    if not isinstance(raw, Mapping):
        return raw
    domains: dict[str, Domain] = {}
    for name, given in raw.items():
        if not isinstance(name, str) or not name.isidentifier():
            refuse(str(name), "is not the name of an argument", name, "a Python identifier")
        domain = free_domain(name, given)
        if isinstance(domain, Range) and (domain.off or domain.per_layer):
            key = "off" if domain.off else "per_layer"
            refuse(f"{name}.{key}", "is for settings of the space, not for arguments", True, "low, high, log, kind")
        domains[name] = domain
    return domains


Arguments = Annotated[dict[str, Fixed | CustomRange | Choices], BeforeValidator(_parsed)]


def argument_issues(schema: ModuleSchema, given: Mapping[str, Domain]) -> Iterator[Issue]:
    """What is wrong with the arguments of a study, on fields `model.args.…`."""
    known = list(schema.arguments)
    for name, domain in given.items():
        field = f"model.args.{name}"
        if name not in schema.arguments:
            close = meant(name, known)
            hint = f"; did you mean {close}?" if close else ""
            yield Issue(field, f"is not an argument of {schema.name}{hint}", name, known)
            continue
        yield from _domain_issues(field, schema.arguments[name], domain)
    for name, argument in schema.arguments.items():
        if argument.required and name not in given:
            message = f"is required: {schema.name} has no default for it"
            yield Issue(f"model.args.{name}", message, None, _allowed(argument))


def _domain_issues(field: str, argument: Argument, domain: Domain) -> Iterator[Issue]:
    match domain:
        case Fixed(value=value):
            wrong = [] if _fits(argument, value) else [value]
        case Choices(choices=choices):
            wrong = [value for value in choices if not _fits(argument, value)]
        case CustomRange(kind=kind, low=low, high=high):
            if argument.choices is not None or argument.kind in ("bool", "word"):
                yield Issue(field, "is not a number: give a value or a list of choices", [low, high], _allowed(argument))
                return
            if argument.kind == "int" and kind == "float":
                yield Issue(field, "has bounds that are no integers", [low, high], _allowed(argument))
            return
        case _:
            raise AssertionError(f"no argument has the domain {domain!r}")
    for value in wrong:
        yield Issue(field, f"cannot be {value!r}", value, _allowed(argument))


def _fits(argument: Argument, value: Scalar) -> bool:
    if argument.choices is not None:
        return any(value == each and type(value) is type(each) for each in argument.choices)
    match argument.kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "word":
            return isinstance(value, str)


def _allowed(argument: Argument) -> str:
    if argument.choices is not None:
        return ", ".join(map(str, argument.choices))
    return {"bool": "true, false", "int": "integers", "float": "numbers", "word": "text"}[argument.kind]


def as_published(schema: ModuleSchema, given: Mapping[str, Domain]) -> dict[str, Domain]:
    """The arguments with the numbers that the signature asks for: a range of a float may be written with integers."""
    return {name: _converted(schema.arguments[name], domain) for name, domain in given.items()}


def _converted(argument: Argument, domain: Domain) -> Domain:
    if argument.kind != "float":
        return domain
    match domain:
        case CustomRange():
            return domain.model_copy(update={"kind": "float"})
        case Fixed(value=value):
            return Fixed(value=float(value))
        case Choices(choices=choices):
            return Choices(choices=tuple(float(value) for value in choices))
    return domain

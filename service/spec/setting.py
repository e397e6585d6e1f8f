"""The declaration of a setting, which is also its validator.

A setting is declared once, as the annotation of a field (see `space`):

    l1: Annotated[Domain | None, Setting(group="penalties", kind="float", low=0.0, ...)] = None

This line determines its checks, its default domain, its Optuna distributions (`service.search`) and its row in the
reference (`service.spec.reference`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, assert_never

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from service.spec.domain import OFF, Choices, Domain, Fixed, PerLayer, Range, Scalar, possible_values


@dataclass(frozen=True)
class When:
    """A condition: the setting has an effect only if the setting ``parent`` has one of ``values``."""

    parent: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a setting is, its allowed values and its defaults.

    Attributes:
        group: Name of the group to which it belongs.
        doc: Its description in the reference.
        kind: Type of its values.
        neutral: Value of a setting that is not in use; for a regularizer, the value that means off.
        search: Domain in the `default` preset; for a conditional setting, its domain if it is omitted.
        advised: Domain suitable for searching it, if the `default` preset does not search it.
        low, high: Inclusive bounds of numeric values.
        words: Allowed values of a `word` setting.
        regularizer: Whether it is switched off in the unregularized baseline, and in turn in the ablation.
        off: Whether the word `off` is accepted.
        per_layer: Whether it may have one value per hidden layer.
        task: The only task in which it has an effect; None for any.
        scope: `lane` if each lane of a stack may have its own value; `stack` if it changes the graph, so that only trials
            with equal values train together.
        when: The condition under which it has an effect; None for always.
    """

    group: str
    doc: str
    kind: Literal["float", "int", "word", "bool"]
    neutral: Scalar
    search: Domain
    advised: Domain | None = None
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    regularizer: bool = False
    off: bool = False
    per_layer: bool = False
    task: Literal["classification", "regression"] | None = None
    scope: Literal["lane", "stack"] = "lane"
    when: When | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Run `parse` before the field's own validation."""
        return core_schema.no_info_before_validator_function(self.parse, handler(source))

    def fits(self, task: str) -> bool:
        """Whether it has an effect in studies of a task; what is for classes is for labels too."""
        return self.task is None or self.task == ("classification" if task == "multilabel" else task)

    @property
    def searched(self) -> Domain:
        """The domain suitable for searching the setting."""
        return self.advised or self.search

    @property
    def everything(self) -> Domain:
        """The domain of all of its values."""
        match self.kind:
            case "word":
                return Choices(choices=self.words)
            case "bool":
                return Choices(choices=(False, True))
            case "int" | "float":
                assert self.low is not None, "numbers have bounds"
                assert self.high is not None, "numbers have bounds"
                return Range(low=self.low, high=self.high, off=self.off)

    def allowed(self) -> str:
        """A description of the allowed values, for messages and the reference."""
        off = f", or {OFF}" if self.off else ""
        match self.kind:
            case "word":
                return ", ".join(self.words) + off
            case "bool":
                return "true, false"
            case "int" | "float":
                number = "integer" if self.kind == "int" else "number"
                return f"{number} from {self.low:g} to {self.high:g}{off}"

    def parse(self, raw: object) -> Domain | None:
        """Convert the form that a user writes to a checked domain.

        Raises:
            PydanticCustomError: It is not a domain of this setting; the error names key, value and what is allowed.
        """
        match raw:
            case None | Fixed() | Range() | Choices() | PerLayer():
                domain = raw
            case bool() | int() | float() | str():
                domain = Fixed(value=raw)
            case list() | tuple():
                domain = self._model(lambda: Choices(choices=tuple(raw)), raw)
            case {"choices": choices, **rest} if not rest:
                domain = self._model(lambda: Choices.model_validate({"choices": choices}), raw)
            case {"per_layer": list() | tuple(), **rest} if not rest:
                domain = self._model(lambda: PerLayer.model_validate(raw), raw)
            case dict():
                domain = self._model(lambda: Range.model_validate(raw), raw)
            case _:
                self._refuse("must be a value, a range {low, high} or a list of choices", raw)
        self._check(domain)
        return domain

    def _check(self, domain: Domain | None) -> None:
        match domain:
            case Fixed(value=value):
                self._check_value(value, "")
            case Choices(choices=choices):
                for index, value in enumerate(choices):
                    self._check_value(value, f"choices.{index}")
                if len(set(map(str, choices))) < len(choices):
                    self._refuse("has the same choice twice", list(choices))
            case PerLayer(per_layer=values):
                if not self.per_layer:
                    self._refuse("cannot be set per layer", list(values))
                for index, value in enumerate(values):
                    self._check_value(value, f"per_layer.{index}")
            case Range():
                self._check_range(domain)
            case None:
                pass
            case _:
                assert_never(domain)

    def _check_range(self, domain: Range) -> None:
        if self.kind in ("word", "bool"):
            self._refuse("is not a number: give a value or a list of choices", domain.model_dump())
        self._check_value(domain.low, "low")
        self._check_value(domain.high, "high")
        if domain.low >= domain.high:
            self._refuse(f"must have low below high, not {domain.low:g} and {domain.high:g}", domain.model_dump())
        if domain.log and domain.low <= 0:
            self._refuse("must have low above 0 because it is logarithmic", domain.low, "low")
        if domain.off and not self.off:
            self._refuse("cannot be switched off", True, "off")
        if domain.per_layer and not self.per_layer:
            self._refuse("cannot be set per layer", True, "per_layer")

    def _check_value(self, value: Scalar, key: str) -> None:
        if value == OFF and self.off and isinstance(value, str):
            return
        match self.kind:
            case "word":
                good = value in self.words
            case "bool":
                good = isinstance(value, bool)
            case "int" | "float":
                good = isinstance(value, int | float) and not isinstance(value, bool) and self._in_bounds(value)
            case _:
                assert_never(self.kind)
        if not good:
            self._refuse(f"cannot be {value!r}", value, key)

    def _in_bounds(self, value: float) -> bool:
        whole = self.kind == "float" or float(value).is_integer()
        return whole and (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def _model(self, build: Callable[[], Domain], raw: object) -> Domain:
        try:
            return build()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            self._refuse(f"{key}: {first['msg']}" if key else first["msg"], raw, key)

    def _refuse(self, message: str, value: object, key: str = "") -> NoReturn:
        raise PydanticCustomError(
            "setting",
            "{message}; allowed: {allowed}",
            {"message": message, "value": value, "allowed": self.allowed(), "key": key},
        )


def settings_of(model: type[BaseModel]) -> dict[str, Setting]:
    """The settings declared as field annotations of ``model``, in order of declaration."""
    return {name: mark for name, field in model.model_fields.items() for mark in field.metadata if isinstance(mark, Setting)}


def refuse_unmet(
    settings: Mapping[str, Setting],
    given: Mapping[str, Domain | None],
    parents: Mapping[str, Domain | None],
    place: str = "",
) -> None:
    """Refuse settings that are given although their condition can never hold.

    Args:
        settings: The settings to check.
        given: Their domains; None if omitted.
        parents: The domains of the settings on which they depend. Conditions on other settings are not checked.
        place: Prefix of the settings' names in the spec, such as ``space.``.

    Raises:
        PydanticCustomError: A condition can never hold.
    """
    for name, setting in settings.items():
        domain = given[name]
        if domain is None or setting.when is None or setting.when.parent not in parents:
            continue
        parent = parents[setting.when.parent]
        # If the parent is omitted, its default domain applies.
        taken = possible_values(parent if parent is not None else settings[setting.when.parent].search) or ()
        if not set(taken) & set(setting.when.values):
            allowed = f"{setting.when.parent} = {' or '.join(map(str, setting.when.values))}"
            context = {"key": f"{place}{name}", "value": domain.model_dump(), "allowed": allowed}
            raise PydanticCustomError("condition", "has an effect only with {allowed}, which this study excludes", context)


def refuse(key: str, message: str, value: Any, allowed: str) -> NoReturn:
    """Refuse a part of a spec.

    Raises:
        PydanticCustomError: With the part's ``key``, its value and what is allowed instead.
    """
    context = {"message": message, "key": key, "value": value, "allowed": allowed}
    raise PydanticCustomError("study", "{message}; allowed: {allowed}", context)

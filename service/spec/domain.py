"""Domains of settings in a spec: one fixed value, a range, a list of choices, or one value per layer.

They are read from a short form in JSON and YAML and dumped to the same form, so that a spec survives a round trip:

    0.1                                              a fixed value; `off` switches a regularizer off
    {low: 1e-4, high: 10, log: true, off: true}      a range; `off: true` lets the search switch it off
    [none, batch, layer]                             choices; `off` may be one of them
    {per_layer: [0.1, 0.5]}                          fixed, one value per hidden layer

Independent of the settings that exist: see `setting` for the checks and `space` for the settings.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

Scalar: TypeAlias = bool | int | float | str
OFF: Literal["off"] = "off"
MOST_CHOICES = 500
"""Optuna's schema keeps the choices of a setting with every trial."""


class Frozen(BaseModel):
    """Base class of all parts of a spec: immutable; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fixed(Frozen):
    """A single value, which is not searched."""

    value: Scalar

    @model_serializer
    def _short(self) -> Scalar:
        return self.value


class Range(Frozen):
    """All values from ``low`` to ``high``, both inclusive; integers if the setting is an integer.

    With ``log`` the logarithm is uniform. With ``off`` the search may also switch the setting off.
    With ``per_layer`` one value is searched for each hidden layer.
    """

    low: float
    high: float
    log: bool = False
    off: bool = False
    per_layer: bool = False

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        return {key: value for key, value in handler(self).items() if value is not False}


class Choices(Frozen):
    """One of several values; `off` may be among them."""

    choices: tuple[Scalar, ...] = Field(min_length=1, max_length=MOST_CHOICES)

    @model_serializer
    def _short(self) -> list[Scalar]:
        return list(self.choices)


class PerLayer(Frozen):
    """Fixed values, one for each hidden layer, in order."""

    per_layer: tuple[float, ...] = Field(min_length=1)


Domain: TypeAlias = Fixed | Range | Choices | PerLayer


def can_leave(domain: Domain, neutral: Scalar) -> bool:
    """Whether a domain contains any value other than `off` and ``neutral``."""
    values = possible_values(domain)
    return values is None or any(value not in (OFF, neutral) for value in values)


def possible_values(domain: Domain) -> tuple[Scalar, ...] | None:
    """The values that a fixed value or a choice can take; None for a range and for values per layer."""
    match domain:
        case Fixed(value=value):
            return (value,)
        case Choices(choices=choices):
            return choices
        case Range() | PerLayer():
            return None

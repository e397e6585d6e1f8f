"""What a setting may be in a spec: one fixed value, a range, a list of choices, or one value per layer.

Written the short way in JSON and YAML, and dumped the same way, so that a spec survives a round trip:

    0.1                                              a fixed value; `off` switches a regularizer off
    {low: 1e-4, high: 10, log: true, off: true}      a range; `off: true` lets the search switch it off
    [none, batch, layer]                             choices; `off` may be one of them
    {per_layer: [0.1, 0.5]}                          fixed, one value per hidden layer

Knows nothing of which settings exist: see `setting` for the checks and `space` for the table.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

Scalar: TypeAlias = bool | int | float | str
OFF: Literal["off"] = "off"


class Frozen(BaseModel):
    """Base of all parts of a spec: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fixed(Frozen):
    """One value, not searched."""

    value: Scalar

    @model_serializer
    def _short(self) -> Scalar:
        return self.value


class Range(Frozen):
    """All values from ``low`` to ``high``, both included; integer where the setting is.

    ``log`` draws the logarithm uniformly. ``off`` lets the search also switch the setting off.
    ``per_layer`` searches one value for every hidden layer.
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

    choices: tuple[Scalar, ...] = Field(min_length=1)

    @model_serializer
    def _short(self) -> list[Scalar]:
        return list(self.choices)


class PerLayer(Frozen):
    """Fixed values, one for every hidden layer, the first layer first."""

    per_layer: tuple[float, ...] = Field(min_length=1)


Domain: TypeAlias = Fixed | Range | Choices | PerLayer


def can_leave(domain: Domain, neutral: Scalar) -> bool:
    """Whether a domain holds any value but `off` and ``neutral``."""
    values = possible_values(domain)
    return values is None or any(value not in (OFF, neutral) for value in values)


def possible_values(domain: Domain) -> tuple[Scalar, ...] | None:
    """The values a fixed or choice domain can take; None for a range, which has no list."""
    match domain:
        case Fixed(value=value):
            return (value,)
        case Choices(choices=choices):
            return choices
        case Range() | PerLayer():
            return None

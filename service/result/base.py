"""The base of all parts of a result: frozen models, numbers that may be undefined, parts added by later versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema, model_validator

T = TypeVar("T")

_LATER = "results of earlier versions lack it"
Later = Annotated[T | None, _LATER]
"""A part that results of earlier versions lack: it is required, and None where such a result is read."""


def _defined(value: Any) -> Any:
    """NaN for None and for numbers that are not finite."""
    if value is None:
        return math.nan
    return math.nan if isinstance(value, float) and not math.isfinite(value) else value


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


Number = Annotated[
    float,
    BeforeValidator(_defined),
    PlainSerializer(_null, return_type=float | None, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
"""A number that may be undefined or infinite, such as the ROC AUC of rows of a single class: NaN here, null in JSON."""

LaterNumber = Annotated[Number, _LATER]
"""A number that results of earlier versions lack: NaN where such a result is read."""


def later(part: type[BaseModel]) -> set[str]:
    """Names of the fields that results of earlier versions lack."""
    return {name for name, field in part.model_fields.items() if _LATER in field.metadata}


class Part(BaseModel):
    """A frozen part of a result. Unknown fields are dropped, so that results of later versions can be read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {**dict.fromkeys(later(cls)), **given}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; parts that do not apply to the study are left out."""
        return self.model_dump(mode="json", exclude_unset=True)

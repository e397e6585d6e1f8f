"""The network: its family and shape. Shape settings are searchable like any other, and belong to the stack key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from service.spec.domain import Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, settings_of

ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "elu")
Width = Annotated[int, Field(ge=1, le=16384)]


class ModelSpec(Frozen):
    """A multilayer perceptron: ``depth`` hidden layers of ``width`` units, or the ``widths`` written out."""

    family: Literal["mlp"] = "mlp"
    widths: tuple[Width, ...] | None = Field(
        None, max_length=64, description="Units of every hidden layer, first to last; instead of `width` and `depth`."
    )
    width: Annotated[Domain | None, Setting(
        group="model", kind="int", low=1, high=16384, neutral=256, scope="stack", search=Fixed(value=256),
        doc="Units of each hidden layer.")] = None
    depth: Annotated[Domain | None, Setting(
        group="model", kind="int", low=0, high=64, neutral=2, scope="stack", search=Fixed(value=2),
        doc="Number of hidden layers; 0 is a linear model.")] = None
    activation: Annotated[Domain | None, Setting(
        group="model", kind="word", words=ACTIVATIONS, neutral="relu", scope="stack", search=Fixed(value="relu"),
        doc="Activation function of the hidden layers.")] = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        given = {key: value for key, value in raw.items() if value is not None}
        shape = {} if "widths" in given else {"width": Fixed(value=256), "depth": Fixed(value=2)}
        return {**shape, "activation": Fixed(value="relu"), **given}

    @model_validator(mode="after")
    def _one_shape(self) -> ModelSpec:
        for name in ("width", "depth"):
            given: Domain | None = getattr(self, name)
            if self.widths is not None and given is not None:
                raise PydanticCustomError(
                    "conflict",
                    "cannot be given beside widths, which already says it",
                    {"key": name, "value": given.model_dump(), "allowed": "either widths, or width and depth"},
                )
        return self

    def depths(self) -> tuple[int, int]:
        """The smallest and the largest number of hidden layers that a trial may have."""
        if self.widths is not None:
            return len(self.widths), len(self.widths)
        match self.depth:
            case Range(low=low, high=high):
                return int(low), int(high)
            case Choices(choices=choices):
                return min(map(int, choices)), max(map(int, choices))
            case Fixed(value=value):
                return int(value), int(value)
            case _:
                raise AssertionError(f"depth is filled by validation and never per layer: {self.depth!r}")


MODEL_SETTINGS: Mapping[str, Setting] = settings_of(ModelSpec)

"""The pruners: which running trials are stopped before their end. What they do is in `service.pruning`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from service.spec.domain import Frozen


class MedianPruner(Frozen):
    """Stop a trial whose best value so far is worse than the median of completed trials at the same epoch."""

    name: Literal["median"] = "median"
    startup_trials: int = Field(8, ge=0, description="Completed trials before anything is pruned.")
    warmup_epochs: int = Field(10, ge=0, description="Epochs in which a trial is never pruned.")


class PercentilePruner(Frozen):
    """Stop a trial whose best value so far is not in the top ``percentile`` of completed trials at the same epoch."""

    name: Literal["percentile"] = "percentile"
    percentile: float = Field(25.0, ge=0.0, le=100.0, description="Per cent of trials that go on; 50 is the median.")
    startup_trials: int = Field(8, ge=0, description="Completed trials before anything is pruned.")
    warmup_epochs: int = Field(10, ge=0, description="Epochs in which a trial is never pruned.")


class SuccessiveHalvingPruner(Frozen):
    """Asynchronous successive halving (Li et al. 2020): the best 1/reduction_factor of each rung go on."""

    name: Literal["successive_halving"] = "successive_halving"
    min_epochs: int = Field(10, ge=1, description="Epochs of the first rung.")
    reduction_factor: int = Field(3, ge=2, le=100, description="Ratio between rungs.")


class HyperbandPruner(Frozen):
    """Hyperband (Li et al. 2018): successive halving in several brackets, which prune more and more patiently."""

    name: Literal["hyperband"] = "hyperband"
    min_epochs: int = Field(5, ge=1, description="Epochs of the first rung of the most impatient bracket.")
    reduction_factor: int = Field(3, ge=2, le=100, description="Ratio between rungs, and between brackets.")


class ThresholdPruner(Frozen):
    """Stop a trial whose value leaves given bounds."""

    name: Literal["threshold"] = "threshold"
    lower: float | None = Field(None, description="A trial below this is pruned.")
    upper: float | None = Field(None, description="A trial above this is pruned.")
    warmup_epochs: int = Field(10, ge=0, description="Epochs in which a trial is never pruned.")

    @model_validator(mode="after")
    def _some_bound(self) -> ThresholdPruner:
        if self.lower is None and self.upper is None:
            raise PydanticCustomError("threshold", "needs a bound", {"key": "", "allowed": "lower, upper or both"})
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            bound = f"at most upper, {self.upper:g}"
            raise PydanticCustomError(
                "threshold", "must be {allowed}", {"key": "lower", "value": self.lower, "allowed": bound}
            )
        return self


class NoPruner(Frozen):
    """Every trial runs until it has converged or its epochs are spent."""

    name: Literal["none"] = "none"


def by_name(raw: Any) -> Any:
    """`median` is short for `{name: median}`."""
    return {"name": raw} if isinstance(raw, str) else raw


WrappedPruner = Annotated[
    MedianPruner | PercentilePruner | SuccessiveHalvingPruner | HyperbandPruner | ThresholdPruner,
    Field(discriminator="name"),
    BeforeValidator(by_name),
]


class PatientPruner(Frozen):
    """Let another pruner stop a trial only once it has not improved for ``patience`` epochs."""

    name: Literal["patient"] = "patient"
    pruner: WrappedPruner | None = Field(
        None, description="The other pruner; without one, a trial that does not improve is pruned."
    )
    patience: int = Field(10, ge=0, le=100_000, description="Epochs without improvement.")
    min_delta: float = Field(
        0.0, ge=0.0, description="The last epochs are no improvement if they are worse by more than this."
    )


Pruner = Annotated[
    MedianPruner | PercentilePruner | SuccessiveHalvingPruner | HyperbandPruner | ThresholdPruner | PatientPruner | NoPruner,
    Field(discriminator="name"),
    BeforeValidator(by_name),
]

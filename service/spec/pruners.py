"""The settings of pruners, which stop running trials early. `service.pruning` implements them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from service.spec.domain import Frozen


class MedianPruner(Frozen):
    """Stop a trial whose best value so far is worse than the median of completed trials at the same epoch."""

    name: Literal["median"] = "median"
    startup_trials: int = Field(8, ge=0, description="Number of completed trials before the first pruning.")
    warmup_epochs: int = Field(10, ge=0, description="Number of initial epochs in which no trial is pruned.")


class PercentilePruner(Frozen):
    """Stop a trial whose best value so far is not in the top ``percentile`` of completed trials at the same epoch."""

    name: Literal["percentile"] = "percentile"
    percentile: float = Field(25.0, ge=0.0, le=100.0, description="Percentage of trials that continue; 50 is the median.")
    startup_trials: int = Field(8, ge=0, description="Number of completed trials before the first pruning.")
    warmup_epochs: int = Field(10, ge=0, description="Number of initial epochs in which no trial is pruned.")


class SuccessiveHalvingPruner(Frozen):
    """Asynchronous successive halving (Li et al. 2020): the best 1/reduction_factor of each rung are promoted."""

    name: Literal["successive_halving"] = "successive_halving"
    min_epochs: int = Field(10, ge=1, description="Epoch of the first rung.")
    reduction_factor: int = Field(3, ge=2, le=100, description="Ratio of the epochs of successive rungs.")


class HyperbandPruner(Frozen):
    """Hyperband (Li et al. 2018): successive halving in several brackets, which begin to prune at different epochs."""

    name: Literal["hyperband"] = "hyperband"
    min_epochs: int = Field(5, ge=1, description="Epoch of the first rung of the first bracket.")
    reduction_factor: int = Field(3, ge=2, le=100, description="Ratio of the first rungs of successive brackets.")


class ThresholdPruner(Frozen):
    """Stop a trial whose last value is outside the bounds or NaN."""

    name: Literal["threshold"] = "threshold"
    lower: float | None = Field(None, description="Trials with a smaller value are pruned.")
    upper: float | None = Field(None, description="Trials with a larger value are pruned.")
    warmup_epochs: int = Field(10, ge=0, description="Number of initial epochs in which no trial is pruned.")

    @model_validator(mode="after")
    def _some_bound(self) -> ThresholdPruner:
        if self.lower is None and self.upper is None:
            raise PydanticCustomError("threshold", "needs a bound", {"key": "", "allowed": "lower, upper or both"})
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            bound = f"at most upper = {self.upper:g}"
            raise PydanticCustomError(
                "threshold", "must be {allowed}", {"key": "lower", "value": self.lower, "allowed": bound}
            )
        return self


class NoPruner(Frozen):
    """Trials run until they converge or reach the last epoch."""

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
    """Stop a trial only if it has not improved for ``patience`` epochs and the wrapped pruner, if any, would stop it."""

    name: Literal["patient"] = "patient"
    pruner: WrappedPruner | None = Field(
        None, description="The wrapped pruner. If omitted, all trials without improvement are pruned."
    )
    patience: int = Field(10, ge=0, le=100_000, description="Number of epochs without improvement.")
    min_delta: float = Field(
        0.0, ge=0.0, description="A trial has not improved if its last epochs are worse than earlier ones by more than this."
    )


Pruner = Annotated[
    MedianPruner | PercentilePruner | SuccessiveHalvingPruner | HyperbandPruner | ThresholdPruner | PatientPruner | NoPruner,
    Field(discriminator="name"),
    BeforeValidator(by_name),
]

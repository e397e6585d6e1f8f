"""Scores of settings: over seeds, on the locked test rows with intervals, and the conclusions from them.

Scores are in the unit of the study's metric. Differences and gaps are signed so that positive means *worse than the winner*
or *worse on unseen rows*, whatever the direction of the metric is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from service.result.base import Later, LaterNumber, Number, Part
from service.spec import Value
from service.spec.metrics import Further

RecipeValues = Mapping[str, Value]
"""The settings in effect, by name; values per hidden layer are a tuple."""


class Spread(Part):
    """Mean and standard deviation over seeds."""

    mean: Number
    std: Number = Field(description="With n - 1 in the denominator; 0 for a single seed.")
    n: int = Field(description="Number of seeds.")


class Interval(Part):
    """A mean over seeds and its 95 % interval, which accounts for the choice of rows and of seeds."""

    mean: Number
    low: Number
    high: Number
    n: int = Field(description="Number of rows.")
    seeds: Later[int]
    se_rows: LaterNumber = Field(description="Standard error that comes from the rows.")
    se_seeds: LaterNumber = Field(description="Standard error that comes from the seeds.")

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of a difference excludes zero."""
        return self.low > 0 or self.high < 0


class TargetScore(Part):
    """Scores of one of several targets by itself, on the test rows; numbers are in the target's own unit."""

    name: str
    winner: Interval = Field(description="The study's metric.")
    baseline: Interval | None = Field(description="That of the network without any regularization.")
    values: Mapping[str, Number] = Field(description="Other metrics of the winner, means over seeds.")
    share: float | None = Field(None, description="Of a label: the share of the test rows that have its second value.")


class Gap(Part):
    """How much worse the metric is on rows further from training, as means over seeds; positive is worse."""

    train_valid: Number = Field(description="From training to validation rows.")
    valid_test: Number = Field(description="From validation to test rows.")
    train_test: Number = Field(description="From training to test rows.")


class Setting(Part):
    """A recipe that was trained over seeds, and its scores, which are null if no seed of it could be trained."""

    name: str
    role: Literal["finalist", "baseline"]
    trial: int | None = Field(description="Number of the trial that found it; null for baselines.")
    recipe: RecipeValues
    regularizers: tuple[str, ...] = Field(description="Settings of the recipe that regularize and are on.")
    train: Later[Spread] = Field(description="Score on training rows.")
    valid: Spread | None = Field(description="Score on validation rows, by which the winner is chosen.")
    test: Interval | None = Field(
        description="Score on the locked test rows; with nested validation that of the procedure, and null for finalists."
    )
    gap: Later[Gap]
    behind_winner: Later[Interval] = Field(
        description="Paired difference to the winner on the test rows; positive: the winner is better. Null for the winner."
    )
    train_loss: Spread | None = Field(description="Training loss, with penalties and dropout, at the epoch kept.")
    also: Later[Mapping[Further, Spread]] = Field(description="The study's further objectives, on validation rows.")

    def scored(
        self,
        *,
        train: Spread,
        valid: Spread,
        test: Interval | None,
        gap: Gap | None,
        behind_winner: Interval | None,
        train_loss: Spread,
        also: Mapping[Further, Spread],
    ) -> Setting:
        """The same setting with its scores."""
        scores = {"train": train, "valid": valid, "test": test, "gap": gap, "behind_winner": behind_winner}
        return self.model_copy(update={**scores, "train_loss": train_loss, "also": also})


class Winner(Setting):
    """The finalist with the best mean score over seeds on validation rows."""

    valid: Spread = Field(description="Score on validation rows, by which it was chosen.")
    test: Interval = Field(description="Score on the locked test rows.")

    @classmethod
    def of(cls, setting: Setting) -> Winner:
        """A winner from a setting that has scores."""
        return cls.model_validate({name: getattr(setting, name) for name in setting.model_fields_set})


class Recommendation(Part):
    """The simplest of the winner and the settings that tie with it."""

    name: str
    reason: str
    recipe: RecipeValues


class Selection(Part):
    """The best value of the search compared with the same recipe's scores over new seeds: how optimistic it was."""

    name: str
    found: Number = Field(description="Best validation value of the search: one seed, the luckiest of many trials.")
    valid: Number = Field(description="Mean over new seeds on the same validation rows.")
    test: Number = Field(description="Mean over the same seeds on the test rows.")
    optimism_valid: Number = Field(description="How much worse than `found` the score on validation rows is.")
    optimism_test: Number = Field(description="How much worse than `found` the score on test rows is.")


class Ablation(Part):
    """The winner trained again with one of its regularizers switched off."""

    without: str
    valid: Spread
    change: Number = Field(description="How much worse the validation score is; positive: the regularizer helped.")
    low: LaterNumber = Field(description="Lower end of the 95 % interval over the seeds; null for a single seed.")
    high: LaterNumber = Field(description="Upper end of that interval.")
    n: Later[int] = Field(description="Number of seeds with which both were trained.")


class Member(Part):
    """A network of the ensemble."""

    name: str = Field(description="Name of its setting.")
    seed: int = Field(description="Index of its seed.")
    share: float = Field(description="Its weight in the average.")


class Single(Part):
    """The winner's network with the best validation score."""

    name: str
    seed: int = Field(description="Index of its seed.")
    valid: Number
    test: Interval


class Coverage(Part):
    """How well a predicted quantile is one: of the test rows about the share ``quantile`` should have targets below it."""

    quantile: float = Field(description="The level that was asked for.")
    winner: Number = Field(description="Share of the test rows whose target is at most the winner's prediction; over seeds.")
    baseline: Number = Field(description="The same without regularization; null if that could not be trained.")


class Ensemble(Part):
    """A greedy ensemble of the networks already trained, chosen on validation rows."""

    members: tuple[Member, ...]
    valid: Number
    test: Interval
    single: Single
    gain: Interval = Field(description="Paired difference to the single network on the test rows; positive: it is better.")


class FrontTrial(Part):
    """A complete trial that no other trial dominates in the study's objectives. Its values are of one seed."""

    trial: int
    values: Mapping[Further, Number] = Field(description="Values by objective, the study's metric first.")
    recipe: RecipeValues
    regularizers: tuple[str, ...]

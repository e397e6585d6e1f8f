"""The result of a study whose trials a program ran: what it told of its settings over seeds, and the conclusions.

Only one number comes from a run, so intervals are over seeds: Student's t of paired differences, network by network, for all
settings run with the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from service.result.base import Number, Part
from service.result.execution import Reading
from service.result.scores import Ablation, RecipeValues, Spread
from service.spec.metrics import Direction


class SeedInterval(Part):
    """A mean of paired differences over seeds, and its 95 % interval; null for a single seed."""

    mean: Number
    low: Number
    high: Number
    n: int = Field(description="Number of seeds with which both were run.")

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


class ExternalSetting(Part):
    """Settings of the space with the scores that the program told of them."""

    name: str
    role: Literal["finalist", "baseline", "trial"]
    trial: int | None = Field(description="Number of the trial that found it; null for the baseline.")
    params: RecipeValues
    regularizers: tuple[str, ...] = Field(description="Regularizers that are on.")
    valid: Spread | None = Field(description="The objective over seeds; null if every run failed.")
    test: Spread | None = Field(description="The same on test data, if the program told it; of winner and baseline only.")
    behind_winner: SeedInterval | None = Field(
        description="Paired difference to the winner; positive: the winner is better."
    )
    failed: tuple[str, ...] = Field(description="Why runs of it failed.")


class ExternalFront(Part):
    """A complete trial that no other trial dominates in the study's objectives."""

    trial: int
    values: Mapping[str, Number]
    params: RecipeValues


class ExternalResult(Part):
    """The result of a finished external study."""

    executor: Literal["external"]
    metric: str
    direction: Direction
    verdict: str = Field(description="The answer in one sentence.")
    winner: ExternalSetting
    baseline: ExternalSetting | None = Field(description="The winner with all regularizers off; null if it has none.")
    others: tuple[ExternalSetting, ...] = Field(description="Further finalists.")
    gain: SeedInterval | None = Field(description="What the winner gains over the baseline; clear if low > 0.")
    test_gain: SeedInterval | None = Field(description="The same on test data, if the program told it.")
    ties: tuple[str, ...] = Field(description="Finalists that can't be distinguished from the winner.")
    optimism: Number = Field(description="How much worse the winner is over new seeds than its trial was.")
    seeds: int = Field(description="Number of seeds with which each setting was run.")
    ablation: tuple[Ablation, ...]
    front: tuple[ExternalFront, ...] | None = Field(
        description="Only with several objectives; the best by its metric first."
    )

    def of_study(self, study_id: int, name: str, state: str, readings: tuple[Reading, ...]) -> ExternalStudyResult:
        """The result with its study and the readings of the test data so far."""
        study = {"id": study_id, "name": name, "state": state}
        return ExternalStudyResult.model_validate({**vars(self), **study, "test_record": readings})


class ExternalStudyResult(ExternalResult):
    """A result with its study and the readings of the test data."""

    id: int
    name: str
    state: str
    test_record: tuple[Reading, ...]

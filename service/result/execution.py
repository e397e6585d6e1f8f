"""How a study was executed: its cost, its provenance, the readings of the test part, and the network handed out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from service.result.base import Later, Number, Part
from service.result.scores import Interval


class RowCounts(Part):
    """Number of rows of each part; with several folds, of the first."""

    train: int
    valid: int
    test: int
    duplicates: int = Field(
        description="Rows that repeat an earlier one; copies stay on one side of every split, unless "
        "there are more than three of every distinct row on average."
    )


class SearchedTrials(Part):
    """Trials by state, and their epochs."""

    waiting: int
    running: int
    complete: int
    pruned: int
    fail: int
    epochs: int = Field(description="Epochs trained by finished trials.")


class Concluded(Part):
    """A search that concluded before its budget was spent."""

    reason: str
    trials: int = Field(description="Trials at its end.")
    budget: int = Field(description="Trials of the budget.")


class SearchPlan(Part):
    """How the search was laid out on its device. A lane trains one trial on one fold."""

    capacity: int = Field(description="Lanes in flight.")
    compiled_lanes: int | None = Field(description="Lanes of a block that may go over to programs; null if none may.")
    threads: Later[int] = Field(description="Blocks that train at the same time, each in a thread of its own.")
    block_lanes: Later[int] = Field(description="Lanes of a block; null for all that are in flight.")
    builds: Later[bool] = Field(description="Whether programs that were not there were compiled.")
    separate: str | None = Field(None, description="Why lanes of a module of the user's own are trained one by one.")
    devices: int = Field(1, description="Devices among which the batches of each lane are divided.")
    taken_over: Later[Mapping[str, Mapping[str, int]]] = Field(
        description="For each stack, after how many rounds its update and its evaluation went over to programs."
    )


class Provenance(Part):
    """All that must be equal for a replay to reproduce the study."""

    data_hash: str = Field(description="SHA-256 of all rows in their order.")
    rows: int
    versions: Mapping[str, str | None] = Field(description="Of Python and packages; null for one that is not installed.")
    device: str
    threads: int = Field(description="CPU threads of the first worker.")
    plan: SearchPlan


class Refit(Part):
    """The winning recipe trained again for the networks handed out. No score in this result is theirs."""

    rows: int = Field(description="Rows they were trained on.")
    of: Literal["all", "train_valid"] = Field(description="All rows, or all but the test part.")
    epochs: int = Field(description="The mean of the winner's best epochs; of folds, of those of these networks.")
    folds: int | None = Field(
        None, description="Of how many folds each was trained without one, by which it stopped; null if all saw all rows."
    )
    single: Number = Field(description="Score of one of the winner's networks on validation rows, a mean over seeds.")
    average: Number = Field(description="Score on validation rows of the average of their predictions.")
    test: Interval = Field(description="Score of that average on the locked test rows, before they were trained on.")


class Temperature(Part):
    """How sure a classification's network is: its outputs are divided by the temperature before they are probabilities.

    Losses are mean cross-entropies; a temperature above 1 makes it less sure. No predicted class changes.
    """

    temperature: float = Field(description="With the smallest loss on validation rows; 1 where these are fewer than 100.")
    valid_before: Number
    valid_after: Number
    test_before: Number = Field(description="Of the networks of the finals, on the locked test rows.")
    test_after: Number


class Thresholds(Part):
    """How a classification's network decides: what is added to its outputs before the largest one determines the class.

    Scores are of the study's metric. Probabilities stay the same.
    """

    biases: tuple[float, ...] = Field(description="Of each class; all 0 where none score better on validation rows.")
    valid_before: Number
    valid_after: Number = Field(description="On each half of the validation rows with the biases of the other half.")
    test_before: Number = Field(description="Of the networks of the finals, on the locked test rows.")
    test_after: Number


class ChosenNetwork(Part):
    """What is handed out: one trained network, or several whose predictions are averaged."""

    of: str = Field(description="Name of its setting.")
    seed_index: int
    seed: int = Field(description="Of several networks, that of the first.")
    epoch: int = Field(description="The last epoch that it was trained for, from 1.")
    validation: Number = Field(
        description="Its validation score, by which it was chosen; of networks trained again, that of the search's networks."
    )
    rule: str = Field(description="How it was chosen and trained, in words.")
    networks: int = Field(1, description="Number of networks.")
    refit: Refit | None = Field(None, description="Null if it is a network of the search.")
    calibration: Temperature | None = Field(None, description="Only of a classification, unless it was switched off.")
    thresholds: Thresholds | None = Field(
        None, description="Only for the metrics `balanced_accuracy`, `f1` and `f1_macro`, unless they were switched off."
    )


class Delivered(ChosenNetwork):
    """That network with its archive."""

    available: bool
    bytes: int | None = Field(None, description="Size of the archive.")
    sha256: str | None = Field(None, description="Of the archive.")
    program: str | None = Field(None, description="Source of the archive's train.py, which trains the same network again.")
    reason: str | None = Field(None, description="Why there is no archive.")

    @classmethod
    def as_archive(cls, chosen: ChosenNetwork, size: int, sha256: str, program: str) -> Delivered:
        """The network with an archive of ``size`` bytes, and the ``program`` in it that trains it again."""
        return cls(**chosen.model_dump(), available=True, bytes=size, sha256=sha256, program=program)

    def withheld(self, reason: str) -> Delivered:
        """The same network without an archive, and the reason."""
        return self.model_copy(update={"available": False, "reason": reason})


class Reading(Part):
    """A recorded reading of the locked test part."""

    at: datetime
    who: str
    purpose: str


class Execution(Part):
    """The execution of a study. Times are wall-clock seconds."""

    wall_seconds: float = Field(description="From the study's start to its answer.")
    search_seconds: Later[float]
    finalizing_seconds: float
    trials: SearchedTrials
    utilization: Mapping[str, float] = Field(description="Shares of the search's time by kind of work.")
    concluded: Later[Concluded] = Field(description="Null if the budget was spent.")
    provenance: Later[Provenance]
    test_accesses: int = Field(description="Number of readings of the test part.")

    @field_validator("provenance", mode="before")
    @classmethod
    def _unknown(cls, given: Any) -> Any:
        """Results of earlier versions have an empty object where the provenance is unknown."""
        return None if given == {} else given

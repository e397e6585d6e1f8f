"""The whole result of a study: `Result` as it is stored, `StudyResult` as the API returns it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from service.result.base import Later, Number, Part
from service.result.execution import Delivered, Execution, Reading, RowCounts
from service.result.insight import Curves, Effect, Importance, SparsityPoint, WarmStart, WeightStatistics
from service.result.nested import Nested
from service.result.predictions import Discrimination, Pictures
from service.result.scores import (
    Ablation,
    Coverage,
    Ensemble,
    FrontTrial,
    Interval,
    Recommendation,
    Selection,
    Setting,
    TargetScore,
    Winner,
)
from service.spec.metrics import Direction, Metric


class Findings(Part):
    """The findings of a study. Mappings are keyed by setting (winner and unregularized) unless stated otherwise."""

    metric: Metric
    direction: Direction
    verdict: str = Field(description="The answer in one sentence.")
    winner: Winner
    baseline: Setting = Field(description="The winner's network without any regularization.")
    others: tuple[Setting, ...] = Field(description="Further finalists and baselines.")
    gain: Later[Interval] = Field(description="Gain by regularization on the test rows; clear if low > 0.")
    ties: tuple[str, ...] = Field(description="Finalists that can't be distinguished from the winner on validation rows.")
    recommended: Later[Recommendation]
    optimism: Number = Field(description="How much worse the winner is over new seeds than its trial was.")
    seeds: int = Field(description="Number of seeds with which each setting was trained.")
    ablation: tuple[Ablation, ...]
    selection: Later[Selection]
    ensemble: Later[Ensemble]
    importance: Later[Importance]
    effects: Later[tuple[Effect, ...]]
    front: tuple[FrontTrial, ...] | None = Field(
        None, description="Pareto front of a study with several objectives; the best by its metric first."
    )
    warm_start: WarmStart | None = Field(None, description="Only with `search_from`.")
    weights: Later[Mapping[str, WeightStatistics]]
    curves: Later[Mapping[str, Curves]]
    sparsification: Later[Mapping[str, tuple[SparsityPoint, ...]]]
    discrimination: Mapping[str, Discrimination] | None = Field(
        None, description="Only of a classification with at most 30 classes."
    )
    coverage: Coverage | None = Field(None, description="Only with the metric `pinball`.")
    nested: Nested | None = Field(None, description="Only of nested validation.")
    targets: tuple[TargetScore, ...] | None = Field(None, description="Only of several targets: each by itself.")
    rows: RowCounts
    phases: Later[Mapping[str, float]] = Field(description="Seconds of finalizing by phase.")
    finalizing_epochs: Later[int] = Field(description="Epochs trained while finalizing, to be compared with trials.epochs.")

    def with_front(self, front: tuple[FrontTrial, ...]) -> Findings:
        """The same findings with a Pareto front."""
        return self.model_copy(update={"front": front})

    def with_warm_start(self, warm_start: WarmStart) -> Findings:
        """The same findings with what earlier studies gained."""
        return self.model_copy(update={"warm_start": warm_start})

    def with_discrimination(self, discrimination: Mapping[str, Discrimination]) -> Findings:
        """The same findings with the discrimination of classes."""
        return self.model_copy(update={"discrimination": discrimination})

    def with_coverage(self, coverage: Coverage) -> Findings:
        """The same findings with the share of the targets that are below the predicted quantile."""
        return self.model_copy(update={"coverage": coverage})

    def with_nested(self, nested: Nested) -> Findings:
        """The same findings with the score of the procedure."""
        return self.model_copy(update={"nested": nested})

    def with_targets(self, targets: tuple[TargetScore, ...]) -> Findings:
        """The same findings with the scores of each of several targets."""
        return self.model_copy(update={"targets": targets})

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All settings that were trained over seeds: the winner, the baseline, the others."""
        return (self.winner, self.baseline, *self.others)


class Result(Findings, Execution):
    """The whole result of a finished study, as it is stored."""

    model: Later[Delivered] = Field(description="The network that is handed out.")
    pictures: Later[Pictures]

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        """Earlier versions called the sparsification `pruning`, a word for trials."""
        if isinstance(given, Mapping) and "pruning" in given and "sparsification" not in given:
            return {"sparsification" if name == "pruning" else name: part for name, part in given.items()}
        return given

    @classmethod
    def of(cls, findings: Findings, execution: Execution, model: Delivered, pictures: Pictures) -> Result:
        """A result from its parts."""
        parts = {name: getattr(part, name) for part in (findings, execution) for name in part.model_fields_set}
        return cls.model_validate({**parts, "model": model, "pictures": pictures})

    def of_study(self, study_id: int, name: str, state: str, readings: tuple[Reading, ...]) -> StudyResult:
        """The result with its study and the readings of the test part so far."""
        parts = {name: getattr(self, name) for name in self.model_fields_set}
        study = {"id": study_id, "name": name, "state": state}
        return StudyResult.model_validate({**parts, **study, "test_record": readings, "test_accesses": len(readings)})


class StudyResult(Result):
    """A result with its study and the readings of the test part."""

    id: int
    name: str
    state: str
    test_record: tuple[Reading, ...]

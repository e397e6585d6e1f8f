"""What a study is told: typed, frozen, validated at the border. Imports neither the store nor torch."""

from service.spec.domain import OFF, Choices, Domain, Fixed, PerLayer, Range, Scalar
from service.spec.model import ModelSpec
from service.spec.parts import (
    LOWER_IS_BETTER,
    BudgetSpec,
    DataSpec,
    EarlyStopping,
    MedianPruner,
    Metric,
    NoPruner,
    RandomSampler,
    SuccessiveHalvingPruner,
    Task,
    TpeSampler,
    ValidationSpec,
)
from service.spec.recipe import Recipe, Value
from service.spec.setting import Setting, When
from service.spec.space import Space
from service.spec.study import SETTINGS, StudySpec, metrics_for

__all__ = [
    "LOWER_IS_BETTER",
    "OFF",
    "SETTINGS",
    "BudgetSpec",
    "Choices",
    "DataSpec",
    "Domain",
    "EarlyStopping",
    "Fixed",
    "MedianPruner",
    "Metric",
    "ModelSpec",
    "NoPruner",
    "PerLayer",
    "RandomSampler",
    "Range",
    "Recipe",
    "Scalar",
    "Setting",
    "Space",
    "StudySpec",
    "SuccessiveHalvingPruner",
    "Task",
    "TpeSampler",
    "ValidationSpec",
    "Value",
    "When",
    "metrics_for",
]

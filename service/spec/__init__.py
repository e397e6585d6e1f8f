"""The specification of a study: typed, frozen, validated when it is submitted. Imports neither the store nor torch."""

from service.spec.domain import OFF, Choices, Domain, Fixed, PerLayer, Range, Scalar
from service.spec.metrics import (
    CLASSIFICATION_METRICS,
    GAP,
    LOWER_IS_BETTER,
    RANKING_METRICS,
    REGRESSION_METRICS,
    Metric,
    Task,
    direction_of,
    metrics_for,
    sign_of,
)
from service.spec.model import ModelSpec
from service.spec.parts import BudgetSpec, Conclude, DataSpec, Deliver, EarlyStopping, ValidationSpec
from service.spec.pruners import (
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PatientPruner,
    PercentilePruner,
    Pruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from service.spec.recipe import Recipe, Value
from service.spec.samplers import (
    BobyqaSampler,
    CmaEsSampler,
    GpSampler,
    GridSampler,
    LipoSampler,
    NsgaSampler,
    QmcSampler,
    RandomSampler,
    TpeSampler,
)
from service.spec.setting import Setting, When
from service.spec.space import Space
from service.spec.study import SETTINGS, StudySpec

__all__ = [
    "CLASSIFICATION_METRICS",
    "GAP",
    "LOWER_IS_BETTER",
    "OFF",
    "RANKING_METRICS",
    "REGRESSION_METRICS",
    "SETTINGS",
    "BobyqaSampler",
    "BudgetSpec",
    "Choices",
    "CmaEsSampler",
    "Conclude",
    "DataSpec",
    "Deliver",
    "Domain",
    "EarlyStopping",
    "Fixed",
    "GpSampler",
    "GridSampler",
    "HyperbandPruner",
    "LipoSampler",
    "MedianPruner",
    "Metric",
    "ModelSpec",
    "NoPruner",
    "NsgaSampler",
    "PatientPruner",
    "PerLayer",
    "PercentilePruner",
    "Pruner",
    "QmcSampler",
    "RandomSampler",
    "Range",
    "Recipe",
    "Scalar",
    "Setting",
    "Space",
    "StudySpec",
    "SuccessiveHalvingPruner",
    "Task",
    "ThresholdPruner",
    "TpeSampler",
    "ValidationSpec",
    "Value",
    "When",
    "direction_of",
    "metrics_for",
    "sign_of",
]

"""The result of a study: one tree of frozen models, which workers build, the store keeps as JSON, the API returns,
and the command line, the report and the client read. Imports pydantic and `service.spec`, nothing else.

    Result            all of it, in two parts:
      Findings          settings with their scores, ablation, ensemble, importances, curves, the verdict
      Execution         time, trials, provenance, readings of the test part
    StudyResult       a result with its study's id, name and state, as the API gives it
    external          the result of a study whose trials a program of the user's ran

Undefined numbers are NaN, and null in JSON. Parts that do not apply to a study (`front` with one objective,
`discrimination` of a regression) are None and left out of its JSON. A result that an earlier version stored is read like any
other; parts that it lacks are None.
"""

from service.result.base import Number, Part
from service.result.execution import (
    ChosenNetwork,
    Concluded,
    Delivered,
    Execution,
    Provenance,
    Reading,
    Refit,
    RowCounts,
    SearchedTrials,
    SearchPlan,
    Temperature,
    Thresholds,
)
from service.result.insight import (
    ChoiceBin,
    Course,
    Curves,
    Effect,
    Importance,
    LayerWeights,
    RangeBin,
    SparsityPoint,
    WarmStart,
    WeightStatistics,
)
from service.result.nested import Nested, OuterFold
from service.result.predictions import (
    Calibration,
    CalibrationBin,
    Confusion,
    Discrimination,
    OneVersusRest,
    Pictures,
    Predictions,
)
from service.result.result import Findings, Result, StudyResult
from service.result.scores import (
    Ablation,
    Coverage,
    Ensemble,
    FrontTrial,
    Gap,
    Interval,
    Member,
    RecipeValues,
    Recommendation,
    Selection,
    Setting,
    Single,
    Spread,
    TargetScore,
    Winner,
)

__all__ = [
    "Ablation",
    "Calibration",
    "CalibrationBin",
    "ChoiceBin",
    "ChosenNetwork",
    "Concluded",
    "Confusion",
    "Course",
    "Coverage",
    "Curves",
    "Delivered",
    "Discrimination",
    "Effect",
    "Ensemble",
    "Execution",
    "Findings",
    "FrontTrial",
    "Gap",
    "Importance",
    "Interval",
    "LayerWeights",
    "Member",
    "Nested",
    "Number",
    "OneVersusRest",
    "OuterFold",
    "Part",
    "Pictures",
    "Predictions",
    "Provenance",
    "RangeBin",
    "Reading",
    "RecipeValues",
    "Recommendation",
    "Refit",
    "Result",
    "RowCounts",
    "SearchPlan",
    "SearchedTrials",
    "Selection",
    "Setting",
    "Single",
    "SparsityPoint",
    "Spread",
    "StudyResult",
    "TargetScore",
    "Temperature",
    "Thresholds",
    "WarmStart",
    "WeightStatistics",
    "Winner",
]

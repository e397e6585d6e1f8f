"""The other parts of a study: data, validation, budget, early stopping."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from service.spec.domain import Frozen
from service.spec.metrics import Monitor


class DataSpec(Frozen):
    """Where the rows come from, and which column is to be predicted."""

    dataset: str | None = Field(
        None, description="A built-in data set (diabetes, breast_cancer, digits, wine) or the id of an uploaded one."
    )
    path: str | None = Field(None, description="A CSV, Parquet or NPZ file under a directory the operator allows.")
    target: str | None = Field(None, description="Column to predict; built-in sets know theirs, NPZ files have `y`.")
    positive: str | None = Field(
        None,
        description="Of two classes, the one that precision, recall, specificity, f1, roc_auc and pr_auc are about; if "
        "silent the second in sorted order.",
    )
    categorical: tuple[str, ...] = Field((), description="Columns to treat as categories although they hold numbers.")
    drop: tuple[str, ...] = Field((), description="Columns to leave out, such as row ids.")
    groups: str | None = Field(
        None, description="Column of groups, such as patients: no group is divided between parts. It is no input."
    )
    time: str | None = Field(
        None,
        description="Column of numbers or ISO 8601 times: later rows validate and test what earlier ones trained. It is no "
        "input.",
    )
    split: str | None = Field(
        None, description="Column of the words train, valid and test that divides the rows itself. It is no input."
    )
    scaling: Literal["standard", "minmax", "quantile", "log", "none"] = Field(
        "standard",
        description="Of numeric columns: to mean 0 and deviation 1, to [0, 1], to normal quantiles, standard behind "
        "sign(x)·ln(1 + |x|), or none.",
    )
    impute: Literal["median", "mean", "most_frequent"] = Field(
        "median", description="What replaces a missing number: a statistic of its column's training rows."
    )
    flag_missing: bool = Field(False, description="Add a 0/1 input for every numeric column with missing values.")
    impute_categories: Literal["missing", "most_frequent"] = Field(
        "missing", description="What replaces a missing category: one of its own, or the most frequent one."
    )
    max_levels: int = Field(
        50, ge=2, le=10_000, description="Categories of a column with an input of their own; the rarest share one."
    )

    @model_validator(mode="after")
    def _one_source(self) -> DataSpec:
        if (self.dataset is None) == (self.path is None):
            raise PydanticCustomError(
                "source", "needs exactly one source", {"allowed": "dataset (a name or id) or path (a file)", "key": ""}
            )
        return self

    @model_validator(mode="after")
    def _one_division(self) -> DataSpec:
        if self.split is not None and self.time is not None:
            raise PydanticCustomError(
                "division",
                "cannot be given beside time, by which rows are divided already",
                {"key": "split", "value": self.split, "allowed": "either split or time"},
            )
        return self


class ValidationSpec(Frozen):
    """How rows are divided. The test part is drawn first, fixed by the seed; no trial ever sees it.

    Parts and folds are stratified by class (a regression's target: by quintile). With `data.groups` no group is divided;
    with `data.time` a fold trains on all rows before those that validate it; with `data.split` or `given` the data says.
    """

    method: Literal["holdout", "kfold"] = Field(
        "holdout", description="One validation part, or every row validates once; a fold is a lane."
    )
    test_fraction: float = Field(0.2, gt=0.0, lt=0.9, description="Share of all rows locked away for the final score.")
    valid_fraction: float = Field(0.2, gt=0.0, lt=0.9, description="Share of all rows for validation (holdout).")
    folds: int = Field(5, ge=2, le=20, description="Number of folds (kfold).")
    repeats: int = Field(1, ge=1, le=20, description="How often to divide anew, behind the same test part.")
    given: bool = Field(
        False, description="Take the test part, and the validation part if there is one, that an NPZ file itself names."
    )

    @model_validator(mode="after")
    def _something_left(self) -> ValidationSpec:
        if self.method == "holdout" and self.test_fraction + self.valid_fraction >= 0.95:
            raise PydanticCustomError(
                "fractions",
                "test_fraction + valid_fraction leave nothing to train on",
                {"key": "valid_fraction", "value": self.valid_fraction, "allowed": "a sum below 0.95"},
            )
        return self


class Conclude(Frozen):
    """End the search when the trials left are not expected to improve the best value by what validation data can tell."""

    after: int = Field(40, ge=20, description="Finished trials before the search may be concluded.")
    tolerance: float = Field(
        0.1, gt=0.0, description="Expected improvement that is not worth going on for, in standard errors of the best value."
    )


def _on_is_defaults(raw: Any) -> Any:
    return {} if raw in ("on", True) else None if raw in ("off", False) else raw


class BudgetSpec(Frozen):
    """What the study may spend. The number of trials is exact, whatever happens to workers."""

    trials: int = Field(600, ge=1, le=1_000_000, description="Trials to finish (complete, pruned or failed).")
    epochs: int = Field(100, ge=1, le=100_000, description="Largest number of epochs of one trial.")
    seconds: float | None = Field(None, gt=0, description="After this long no further trial starts.")
    trial_seconds: float | None = Field(None, gt=0, description="A trial that trains for longer is pruned.")
    max_retries: int = Field(
        3, ge=0, le=100, description="How often a trial is repeated after its worker was lost or memory ran out."
    )
    max_failed_trials: int | None = Field(None, ge=0, description="More failed trials than this stop the study.")
    finalists: int = Field(5, ge=1, le=50, description="Best settings that are trained again at the end.")
    seeds: int = Field(5, ge=2, le=100, description="Seeds that each of them and each baseline is trained with.")
    conclude: Annotated[Conclude | None, BeforeValidator(_on_is_defaults)] = Field(
        None, description="`on`, or its settings: see `budget.conclude` below. Off by default, so that the budget is exact."
    )


class EarlyStopping(Frozen):
    """Convergence: a trial ends when its monitored value has not improved for ``patience`` epochs; it stays eligible."""

    patience: int = Field(20, ge=1, le=100_000, description="Epochs without improvement before a trial is converged.")
    min_delta: float = Field(0.0, ge=0.0, description="An improvement is more than this, in the monitored value's own unit.")
    restore_best: bool = Field(True, description="Keep the weights of the best epoch instead of the last.")
    monitor: Monitor = Field(
        "metric", description="`metric` is the objective, `loss` the validation loss; or any metric of the task."
    )


def _off_is_none(raw: Any) -> Any:
    return None if raw in ("off", False) else raw


OptionalEarlyStopping = Annotated[EarlyStopping | None, BeforeValidator(_off_is_none)]

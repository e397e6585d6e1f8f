"""The other parts of a study: data, validation, budget, early stopping."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from service.datasets.readings import ColumnType
from service.datasets.tables import MAX_TARGETS
from service.spec.domain import Frozen
from service.spec.metrics import Monitor

Scaling = Literal["standard", "robust", "minmax", "quantile", "log", "none"]


ASIDE = ("groups", "time", "split", "weights")
"""Keys of `DataSpec` that name a column which divides or weighs the rows, and is no input."""


Column = Annotated[str, Field(min_length=1)]


def _one_or_several(given: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    """A list of one column as that column."""
    if given is None or isinstance(given, str):
        return given
    if not 1 <= len(given) <= MAX_TARGETS or len(set(given)) < len(given):
        what = "names a column twice" if len(set(given)) < len(given) else f"names {len(given)} columns"
        raise PydanticCustomError("targets", what, {"allowed": f"1 to {MAX_TARGETS} different columns", "key": ""})
    return given if len(given) > 1 else given[0]


class DataSpec(Frozen):
    """The source of the rows, the column to predict, and preprocessing."""

    dataset: str | None = Field(
        None, description="Name of a built-in data set (diabetes, breast_cancer, digits, wine) or id of an uploaded one."
    )
    path: str | None = Field(None, description="A CSV, Parquet or NPZ file in a directory that the operator allows.")
    target: Annotated[str | tuple[Column, ...] | None, AfterValidator(_one_or_several)] = Field(
        None,
        description="Column to predict, or a list of them: labels of two values each, or numbers. Rows that lack any of "
        "them are left out. Not needed for built-in data sets and NPZ files, which have `y` (rows,) or (rows, targets).",
    )
    positive: str | None = Field(
        None,
        description="Positive class of precision, recall, specificity, f1, roc_auc and pr_auc with two classes. If omitted, "
        "the second in sorted order.",
    )
    categorical: tuple[str, ...] = Field((), description="Columns of numbers to treat as categories.")
    drop: tuple[str, ...] = Field((), description="Columns to ignore, such as row ids.")
    missing: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        (),
        max_length=20,
        description="Words that stand for a missing value, such as `?`. Empty fields always do; NA, null and the like do in "
        "columns of numbers, and are names in columns of text.",
    )
    types: dict[str, ColumnType] = Field(
        {},
        max_length=10_000,
        description="How columns are read, by name, where that is not as inferred: `number` (text that is none is missing), "
        "`decimal_point` or `decimal_comma` (1,234.5 or 1.234,5), `category`, `date` (also 20240503), `month_first` or "
        "`day_first` (05/03/2024), `text` (counts of hashed words).",
    )
    layout: Literal["auto", "channels_first", "channels_last"] = Field(
        "auto",
        description="Where images (rows, a, b, c) have their channels; `auto`: on the shorter of first and last axis.",
    )
    image_size: int | None = Field(
        None,
        ge=4,
        le=512,
        description="Height and width that the images of a ZIP file get; if omitted, those of most of them, or the median, "
        "at most 224.",
    )
    groups: str | None = Field(
        None, description="Column of groups, such as patients: no group is divided between parts. Not an input."
    )
    time: str | None = Field(
        None,
        description="Column of numbers or times: training uses earlier rows, validation and test later ones. Not an input.",
    )
    weights: str | None = Field(
        None,
        description="Column of numbers, at least 0, by which each row's loss is multiplied in training; they are divided by "
        "their mean over the training rows. Scores count all rows alike. Not an input.",
    )
    split: str | None = Field(
        None, description="Column with the words train, valid and test, which divide the rows. Not an input."
    )
    scaling: Scaling | None = Field(
        None,
        description="Scaling of numeric columns; if omitted, `robust` with the presets `tabular` and `realmlp`, "
        "`quantile` with `tabm`, else `standard`. In this order: to mean 0 and standard deviation 1; minus the median, "
        "divided by the interquartile range, and smoothly clipped at ±3; to [0, 1]; to quantiles of a normal distribution; "
        "`standard` after sign(x)·ln(1 + |x|); or none.",
    )
    impute: Literal["median", "mean", "most_frequent"] = Field(
        "median", description="Replacement of missing numbers: a statistic of the column's training rows."
    )
    flag_missing: bool = Field(False, description="Add a 0/1 input for each numeric column with missing values.")
    impute_categories: Literal["missing", "most_frequent"] = Field(
        "missing", description="Replacement of missing categories: a separate category, or the most frequent one."
    )
    max_levels: int = Field(
        50,
        ge=2,
        le=10_000,
        description="Maximum number of categories of a column with separate inputs; rarer ones share one.",
    )

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict; none where they are left out, as arrays allow."""
        return () if self.target is None else (self.target,) if isinstance(self.target, str) else self.target

    @property
    def aside(self) -> dict[str, str]:
        """The columns that divide or weigh the rows, which are no inputs, with what each is used as."""
        return {name: use for use in ASIDE if (name := getattr(self, use)) is not None}

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
                "cannot be combined with time, which already divides the rows",
                {"key": "split", "value": self.split, "allowed": "either split or time"},
            )
        return self


class ValidationSpec(Frozen):
    """How rows are divided. The test part is drawn first, determined by the seed; no trial ever uses it.

    Parts and folds are stratified by class, or by quintile of the target in regression; with several labels by the rarest
    value that the row has of any, with several numbers by quintile of the sum of the standardized targets. With
    `data.groups` no group is divided; with `data.time` a fold trains on all rows before its validation rows; with
    `data.split` or `given` the data determine the parts.
    """

    method: Literal["auto", "holdout", "kfold", "nested"] = Field(
        "auto",
        description="One validation part, or k folds in which each row validates once; each fold is a lane. `auto`: k folds "
        "of a table with few rows, of which one part would choose by luck (5 folds up to 2000 rows, 3 up to 5000), "
        "else a holdout. With k folds the default number of trials is divided by k, and 3 finalists train with 3 seeds. "
        "`nested`, for very few rows, has no test part: all rows are divided into outer folds, a search by k folds runs on "
        "the rows outside of each, and its winner is scored on those inside; one more search, of all rows, gives the model. "
        "The score is that of this procedure, from all rows. It takes `outer_folds` + 1 times as long: `budget.trials` is "
        "for each of the searches, the other limits are for all of them together.",
    )
    outer_folds: int = Field(5, ge=2, le=20, description="Number of outer folds (nested).")
    test_fraction: float = Field(0.2, gt=0.0, lt=0.9, description="Fraction of all rows locked away for the final score.")
    valid_fraction: float = Field(0.2, gt=0.0, lt=0.9, description="Fraction of all rows for validation (holdout).")
    folds: int = Field(5, ge=2, le=20, description="Number of folds (kfold, nested).")
    repeats: int = Field(1, ge=1, le=20, description="Number of different divisions, with the same test part.")
    given: bool = Field(False, description="Use the test part, and the validation part if there is one, of an NPZ file.")

    @property
    def cross_validated(self) -> bool:
        """Whether a search has k folds."""
        return self.method in ("kfold", "nested")

    @property
    def searches(self) -> int:
        """Number of searches of the study (see `service.spec.nested`)."""
        return 1 + self.outer_folds if self.method == "nested" else 1

    @model_validator(mode="after")
    def _something_left(self) -> ValidationSpec:
        if self.method in ("auto", "holdout") and self.test_fraction + self.valid_fraction >= 0.95:
            raise PydanticCustomError(
                "fractions",
                "leaves no training rows: test_fraction + valid_fraction is too large",
                {"key": "valid_fraction", "value": self.valid_fraction, "allowed": "a sum below 0.95"},
            )
        return self


class Conclude(Frozen):
    """End the search when the improvement expected of the remaining trials is too small to measure on validation data."""

    after: int = Field(40, ge=20, le=1_000_000, description="Finished trials before the search may be concluded.")
    tolerance: float = Field(
        0.1, gt=0.0, description="Expected improvement below which the search ends, in standard errors of the best value."
    )


def _on_is_defaults(raw: Any) -> Any:
    return {} if raw in ("on", True) else None if raw in ("off", False) else raw


class Deliver(Frozen):
    """Training the winning recipe again for the network that is handed out, after the test part has been scored.

    It is trained on more rows than the search could use, for as many epochs as its best epochs were on average, without
    early stopping, unless it is one of ``folds``. ``off`` hands out a network of the search instead.
    """

    rows: Literal["all", "train_valid"] = Field(
        "all", description="Rows it is trained on: all, or all but the test part. Scores are of the time before."
    )
    networks: Literal["auto", "ensemble", "folds", "single"] = Field(
        "auto",
        description="The average of several networks, or one. `ensemble` trains them on all rows; `folds`, of a study "
        "with k folds, trains `seeds` networks without each fold, which stop by its rows (bagging). `auto` is `ensemble` "
        "unless its loss on validation rows is higher than that of the networks alone.",
    )
    seeds: int = Field(5, ge=1, le=50, description="Networks of the ensemble; with `folds`, of each fold.")
    temperature: Literal["auto", "off"] = Field(
        "auto",
        description="Of classes and labels: whether the outputs are divided by the temperature for which the labels of "
        "validation rows are most likely (Guo et al. 2017), so that probabilities are neither too sure nor too unsure.",
    )
    thresholds: Literal["auto", "off"] = Field(
        "auto",
        description="With the metrics `balanced_accuracy`, `f1` and `f1_macro`: whether the network decides for a class by "
        "thresholds with the best score on validation rows, instead of the largest probability. They are used if those "
        "of each half of these rows score better on the other half. With several labels and `f1_macro` each label has one.",
    )


SEARCH_SHARE = 0.6
"""Of a time budget; the rest is for finalizing."""


class BudgetSpec(Frozen):
    """Limits of the study. The number of trials is exact, even if workers are lost."""

    trials: int = Field(600, ge=1, le=1_000_000, description="Number of trials to finish (complete, pruned or failed).")
    epochs: int = Field(100, ge=1, le=100_000, description="Maximum number of epochs of a trial.")
    seconds: float | None = Field(
        None,
        gt=0,
        description="Time in seconds for the answer. The search ends after 60 % of it, with the best epochs of its running "
        "trials; then fewer finalists train with fewer seeds if it is short.",
    )
    trial_seconds: float | None = Field(None, gt=0, description="Training time in seconds after which a trial is pruned.")
    max_retries: int = Field(
        3, ge=0, le=100, description="Maximum number of retries of a trial whose worker was lost or ran out of memory."
    )
    max_lost_workers: int = Field(
        6,
        ge=1,
        le=1000,
        description="The study fails when so many workers in a row were lost on it with no epoch reported in between: its "
        "data or its networks are then too large for them.",
    )
    max_failed_trials: int | None = Field(
        None, ge=0, le=1_000_000, description="The study fails once more trials than this have failed."
    )
    finalists: int = Field(5, ge=1, le=50, description="Number of best settings that are trained again at the end.")
    seeds: int = Field(5, ge=2, le=100, description="Number of seeds with which each finalist and baseline is trained.")
    conclude: Annotated[Conclude | None, BeforeValidator(_on_is_defaults)] = Field(
        None, description="`on`, or settings: see `budget.conclude` below. Off by default, so that the budget is exact."
    )

    @property
    def search_seconds(self) -> float | None:
        """The part of ``seconds`` after which no further trial starts and running ones end."""
        return None if self.seconds is None else SEARCH_SHARE * self.seconds


Tag = Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[\w.:/@+-]+( [\w.:/@+-]+)*$")]
"""Words of letters, digits and some signs."""
Tags = Annotated[tuple[Tag, ...], Field(max_length=20), AfterValidator(lambda given: tuple(dict.fromkeys(given)))]
Notes = Annotated[str, Field(max_length=20_000)]


class EarlyStopping(Frozen):
    """Convergence: a trial is complete when its monitored value has not improved for ``patience`` epochs."""

    patience: int = Field(20, ge=1, le=100_000, description="Epochs without improvement after which a trial has converged.")
    min_delta: float = Field(0.0, ge=0.0, description="An improvement must exceed this, in units of the monitored value.")
    restore_best: bool = Field(
        True, description="Keep the weights of the best epoch, of equally good ones the last, rather than those at the end."
    )
    monitor: Monitor = Field(
        "metric",
        description="Monitored value: `metric` is the objective, `loss` the validation loss; or any metric of the task.",
    )


def _off_is_none(raw: Any) -> Any:
    return None if raw in ("off", False) else raw


OptionalEarlyStopping = Annotated[EarlyStopping | None, BeforeValidator(_off_is_none)]
OptionalDeliver = Annotated[Deliver | None, BeforeValidator(_on_is_defaults)]

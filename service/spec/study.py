"""The specification of a study: one frozen value, which is stored and makes the study reproducible."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator

from service.spec.domain import Choices, Domain, Frozen, PerLayer, Range, can_leave, possible_values
from service.spec.enqueue import check_enqueued
from service.spec.groups.normalization import NORMALIZATIONS
from service.spec.metrics import GAP, PINBALL, Direction, Further, Metric, Task, direction_of, metrics_for, sign_of
from service.spec.model import MODEL_SETTINGS, ModelSpec
from service.spec.nested import NESTED, check_nested
from service.spec.parts import (
    BudgetSpec,
    DataSpec,
    Deliver,
    EarlyStopping,
    Notes,
    OptionalDeliver,
    OptionalEarlyStopping,
    Tags,
    ValidationSpec,
)
from service.spec.presets import PENDING, filled, filled_for_task, first_trial, usual_trials
from service.spec.pruners import HyperbandPruner, MedianPruner, NoPruner, PatientPruner, Pruner
from service.spec.samplers import OF_SEVERAL_OBJECTIVES, Sampler, TpeSampler
from service.spec.searchable import searched
from service.spec.setting import Setting, refuse, refuse_unmet
from service.spec.space import SPACE_SETTINGS, Space

AUTO_FOLDS = ((49, 1), (2000, 5), (5000, 3))
"""Of how many folds the validation is that `auto` chooses, up to a number of rows; more have one validation part."""
SETTINGS: dict[str, Setting] = {**MODEL_SETTINGS, **SPACE_SETTINGS}


class StudySpec(Frozen):
    """One search over regularization settings. Only ``data`` is required."""

    executor: Literal["workers"] = Field(
        "workers",
        description="Who trains: the workers of the service; `external` is a program of yours (see External studies).",
    )
    name: str = Field(
        "study", min_length=1, max_length=200, pattern=r"^\S(.*\S)?$", description="Name; a number is added if it is taken."
    )
    owner: str = Field("default", min_length=1, max_length=100, description="Owner; workers are shared fairly among owners.")
    priority: int = Field(0, ge=-100, le=100, description="Studies with higher priority get workers first.")
    tags: Tags = Field((), description="Words by which people find it: at most 20, of letters, digits and `.:/@+-`.")
    notes: Notes = Field("", description="What people want to keep of it, in Markdown.")
    data: DataSpec
    task: Task | None = Field(
        None,
        description="If omitted, inferred from the target. Several targets are `multilabel` if each has two values, else a "
        "`regression` of each, where all are numbers.",
    )
    metric: Metric | None = Field(
        None,
        description="Objective; if omitted, accuracy or rmse, with several labels log_loss. With more than two classes "
        "precision, recall, specificity, f1, roc_auc and pr_auc are means over the classes, one versus the rest. `pinball` "
        "needs a `quantile`.",
    )
    quantile: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="Level of the quantile of the target that is predicted, with the metric `pinball` (and only with it): "
        "0.9 for a value that nine of ten targets are to be below. Training's loss is then the pinball loss of this level.",
    )
    also: tuple[Further, ...] = Field(
        (),
        max_length=2,
        description="Further objectives: metrics of the task, or `gap`, the amount by which `metric` is worse on validation "
        "than on training rows. The search is then for the front: trials that no other trial dominates. `metric` determines "
        "which of them wins. No trial is pruned.",
    )
    model: ModelSpec = Field(default_factory=lambda: ModelSpec.model_validate({}))
    space: Space = Field(default_factory=lambda: Space.model_validate({}))
    validation: ValidationSpec = ValidationSpec()
    early_stopping: OptionalEarlyStopping = EarlyStopping()
    sampler: Sampler = TpeSampler()
    enqueue: tuple[dict[str, bool | int | float | str | tuple[float, ...]], ...] = Field(
        (),
        max_length=10_000,
        description="Settings of the first trials, each as `{setting: value}`; omitted settings are drawn at random.",
    )
    search_from: tuple[int, ...] = Field(
        (),
        max_length=20,
        description="Ids of finished studies of like data or networks, whose trials the search begins with (sampler `tpe`, "
        "one objective): their best and their other trials, by rank within each study. Of the first 16 trials every second "
        "one is drawn at random instead; the result has the medians of both halves.",
    )
    pruner: Pruner = MedianPruner()
    budget: BudgetSpec = BudgetSpec()
    deliver: OptionalDeliver = Field(Deliver(), description="What is handed out, or `off`: see `deliver` below.")
    max_parallel_trials: int | None = Field(
        None, ge=1, le=1_000_000, description="Maximum number of running trials, over all workers."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the split, the sampler and all trials.")

    @model_validator(mode="before")
    @classmethod
    def _filled_from_preset(cls, raw: Any) -> Any:
        return filled(raw) if isinstance(raw, Mapping) else raw

    @model_validator(mode="before")
    @classmethod
    def _several_objectives_have_no_pruner(cls, raw: Any) -> Any:
        return without_pruner(raw)

    @model_validator(mode="wrap")
    @classmethod
    def _named_by_its_author(cls, raw: Any, handler: ModelWrapValidatorHandler[StudySpec]) -> StudySpec:
        """Validators that are defined later are called earlier, so this one sees what was sent."""
        spec = handler(raw)
        if isinstance(raw, Mapping):
            parts = [part for part in (raw.get("model"), raw.get("space")) if isinstance(part, Mapping)]
            # As if computed by it: a private attribute would make studies unequal that are the same.
            spec.__dict__["named"] = frozenset(name for part in parts for name, value in part.items() if value is not None)
        return spec

    @cached_property
    def named(self) -> frozenset[str]:
        """The settings of model and space that its author has named, none of which a preset or a default has chosen."""
        return frozenset()

    @model_validator(mode="after")
    def _space_fits_the_family(self) -> StudySpec:
        refuse_unmet(SPACE_SETTINGS, vars(self.space), vars(self.model), "space.")
        words = possible_values(self.domains["normalization"]) or ()
        allowed = NORMALIZATIONS[self.model.word]
        for word in words:
            if word not in allowed:
                message = f"{word!r} is not available for a {self.model.word}"
                hint = " (see replace_normalization)" if self.model.module is not None else ""
                refuse("space.normalization", message + hint, list(words), ", ".join(allowed))
        if self.model.module is None and "own" in (possible_values(self.domains["init"]) or ()):
            refuse("space.init", "can be own for a module of yours only", "own", "he, xavier, normal, orthogonal")
        return self

    @model_validator(mode="after")
    def _layers_agree(self) -> StudySpec:
        for name, domain in self.domains.items():
            if isinstance(domain, PerLayer) and len(domain.per_layer) != self.model.depths()[1]:
                refuse(
                    f"space.{name}",
                    f"has {len(domain.per_layer)} values for {self.model.depths()[1]} layers",
                    list(domain.per_layer),
                    "one value per hidden layer",
                )
        return self

    @model_validator(mode="after")
    def _enqueued_trials_are_in_the_space(self) -> StudySpec:
        if len(self.enqueue) > self.budget.trials:
            message = "has more entries than the budget has trials"
            refuse("enqueue", message, len(self.enqueue), f"at most {self.budget.trials}")
        for index, given in enumerate(self.enqueue):
            check_enqueued(index, given, self.domains, self.settings, self.model.depths()[1])
        return self

    @model_validator(mode="after")
    def _targets_fit_task(self) -> StudySpec:
        several = len(self.data.targets) > 1
        if several and self.task == "classification":
            refuse("task", "has one target only", self.task, "multilabel, regression, or one column in data.target")
        if not several and self.task == "multilabel" and self.data.target is not None:
            refuse("task", "needs several targets", self.task, "a list of columns in data.target")
        if several and self.data.positive is not None:
            message = "is for one target; of several labels each has its second value in sorted order as the positive one"
            refuse("data.positive", message, self.data.positive, "nothing")
        return self

    @model_validator(mode="after")
    def _metrics_fit_task(self) -> StudySpec:
        if self.task is None:
            return self
        allowed = metrics_for(self.task)
        if self.metric is not None and self.metric not in allowed:
            refuse("metric", f"does not fit a {self.task} task", self.metric, ", ".join(allowed))
        for name in self.also:
            if name not in (*allowed, GAP):
                refuse(
                    "also", f"has {name}, which does not fit a {self.task} task", list(self.also), ", ".join((*allowed, GAP))
                )
        monitor = self.early_stopping.monitor if self.early_stopping else "metric"
        if monitor not in ("metric", "loss", *allowed):
            wanted = ", ".join(("metric", "loss", *allowed))
            refuse("early_stopping.monitor", f"does not fit a {self.task} task", monitor, wanted)
        return self

    @model_validator(mode="after")
    def _a_quantile_is_for_its_loss(self) -> StudySpec:
        monitor = self.early_stopping.monitor if self.early_stopping else "metric"
        if self.metric == PINBALL and self.quantile is None:
            refuse("quantile", "is needed by the metric pinball", None, "a number between 0 and 1, such as 0.9")
        if self.metric != PINBALL and self.quantile is not None:
            refuse("metric", "does not predict the quantile that the study asks for", self.metric, PINBALL)
        if self.metric != PINBALL and PINBALL in self.also:
            refuse("also", f"has {PINBALL}, which can only be the metric", list(self.also), "other metrics")
        if self.metric != PINBALL and monitor == PINBALL:
            refuse("early_stopping.monitor", "is for studies with the metric pinball", monitor, "another metric")
        huber = self.domains["huber_delta"]
        if self.quantile is not None and can_leave(huber, SETTINGS["huber_delta"].neutral):
            refuse("space.huber_delta", "has no effect on the pinball loss", huber.model_dump(), "off")
        return self

    @model_validator(mode="after")
    def _earlier_trials_can_be_used(self) -> StudySpec:
        if not self.search_from:
            return self
        if len(set(self.search_from)) < len(self.search_from):
            refuse("search_from", "has a study twice", list(self.search_from), "each study once")
        given = list(self.search_from)
        if not isinstance(self.sampler, TpeSampler):
            refuse("search_from", f"can't be used by the sampler {self.sampler.name}", given, "the sampler tpe")
        if self.also:
            refuse("search_from", "supports one objective only", given, "no further objectives in `also`")
        return self

    @model_validator(mode="after")
    def _several_objectives_can_be_searched(self) -> StudySpec:
        if not self.also:
            return self
        if len({self.metric, *self.also}) < 1 + len(self.also):
            refuse("also", "has an objective twice", list(self.also), "each objective once, without `metric`")
        if self.sampler.name not in OF_SEVERAL_OBJECTIVES:
            allowed = ", ".join(OF_SEVERAL_OBJECTIVES)
            refuse("sampler", "supports one objective only, and also has more", self.sampler.name, allowed)
        if not isinstance(self.pruner, NoPruner):
            refuse("pruner", "supports one objective only, and also has more", self.pruner.name, "none")
        if self.budget.conclude is not None:
            refuse("budget.conclude", "supports one objective only, and also has more", "on", "off")
        return self

    @model_validator(mode="after")
    def _division_is_one(self) -> StudySpec:
        if self.data.time is not None and self.validation.repeats > 1:
            refuse("validation.repeats", "cannot be more than 1 with data.time", self.validation.repeats, "1")
        if self.data.time is not None and self.validation.given:
            refuse("validation.given", "cannot be combined with data.time", True, "either of them")
        return self

    @model_validator(mode="after")
    def _nested_searches_are_possible(self) -> StudySpec:
        check_nested(self)
        return self

    @model_validator(mode="after")
    def _snapshots_see_their_restarts(self) -> StudySpec:
        if self.early_stopping is not None and can_leave(self.domains["snapshots"], SETTINGS["snapshots"].neutral):
            message = "ends trials while they get worse after a restart, which space.snapshots is for"
            refuse("early_stopping", message, self.early_stopping.model_dump(), "off, or space.snapshots: false")
        return self

    @model_validator(mode="after")
    def _delivered_folds_are_there(self) -> StudySpec:
        if self.deliver is None or self.deliver.networks != "folds":
            return self
        if self.data.time is not None:
            refuse("deliver.networks", "is not for data.time, whose first folds train on old rows only", "folds", "ensemble")
        if self.validation.method == "holdout":
            refuse("deliver.networks", "needs k folds, and the validation is a holdout", "folds", "validation.method: kfold")
        return self

    @model_validator(mode="after")
    def _rungs_are_within_the_budget(self) -> StudySpec:
        inner = self.pruner.pruner if isinstance(self.pruner, PatientPruner) else self.pruner
        if isinstance(inner, HyperbandPruner) and inner.min_epochs > self.budget.epochs:
            field = "pruner.min_epochs" if inner is self.pruner else "pruner.pruner.min_epochs"
            refuse(field, "is beyond the last epoch", inner.min_epochs, f"at most budget.epochs = {self.budget.epochs}")
        return self

    @model_validator(mode="after")
    def _settings_fit_task(self) -> StudySpec:
        for name, domain in self.domains.items():
            setting = self.settings[name]
            if name in PENDING and getattr(self.model if name in MODEL_SETTINGS else self.space, name) is None:
                continue
            if self.task is not None and not setting.fits(self.task) and can_leave(domain, setting.neutral):
                refuse(
                    f"space.{name}",
                    f"does not fit a {self.task} task",
                    domain.model_dump(),
                    f"off, or a {setting.task} task",
                )
        return self

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """The domain of each searchable setting, parents before their children; no width and depth if there are ``widths``.

        An omitted conditional setting has its default domain, one that a preset has yet to determine any value.
        """
        domains: dict[str, Domain] = {}
        for name, setting in SETTINGS.items():
            given = getattr(self.model if name in MODEL_SETTINGS else self.space, name)
            if given is None and setting.when is None:
                if name not in PENDING or (name in MODEL_SETTINGS and self.model.module is not None):
                    continue
                given = setting.everything
            domains[name] = setting.search if given is None else given
        return domains | {name: domain for name, (_, domain) in self.model.own.items()}

    @cached_property
    def searched(self) -> list[str]:
        """The settings that have more than one possible value, in trials that can occur."""
        return searched(self.domains, self.settings)

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        """The declarations of all settings, those of a module's arguments included."""
        return {**SETTINGS, **{name: setting for name, (setting, _) in self.model.own.items()}}

    @property
    def widths(self) -> tuple[int, ...] | None:
        """Numbers of units of the hidden layers where they are fixed, one by one."""
        return self.model.widths

    @property
    def deepest(self) -> int:
        """The largest number of hidden layers."""
        return self.model.depths()[1]

    @property
    def stack_keys(self) -> int:
        """Upper bound of the number of stack keys of its trials: the product of the numbers of values."""
        counts = []
        for name in self.searched:
            domain, setting = self.domains[name], self.settings[name]
            if setting.scope != "stack":
                continue
            if isinstance(domain, Choices):
                counts.append(len(domain.choices))
            elif isinstance(domain, Range) and setting.kind == "int":
                counts.append(int(domain.high) - int(domain.low) + 1)
        return math.prod(counts)

    def resolved(self, task: Task, rows: int | None = None, *, categories: bool = False) -> StudySpec:
        """The same study with ``task``, ``metric`` and all that is left to be chosen filled in, as it is stored.

        Args:
            task: Of its target.
            rows: Of its data, by which `auto` chooses the validation; a holdout if it is not known.
            categories: Whether its data have categorical inputs.

        Raises:
            pydantic.ValidationError: The metric or a setting does not fit the inferred task.
        """
        metric = self.metric or metrics_for(task)[0]
        document = filled_for_task(self.model_dump(mode="json"), task, metric, categories=categories) | {
            "task": task,
            "metric": metric,
        }
        document |= self._validated_by(rows)
        if first := first_trial(document, task):
            with contextlib.suppress(ValidationError):  # at worst it is not in the space that the study searches
                return StudySpec.model_validate(document | {"enqueue": [first]})
        return StudySpec.model_validate(document)

    def _validated_by(self, rows: int | None) -> dict[str, Any]:
        """Validation and budget, with `auto` and what is left out of the budget replaced."""
        division, given = self.validation.model_dump(mode="json"), self.budget.model_fields_set
        folds = 1
        if division["method"] == "auto":
            asked = self.validation.model_fields_set
            divided = self.data.time or self.data.split or self.validation.given or self.model.layout != "flat"
            if divided or rows is None or "valid_fraction" in asked:
                folds = 1
            elif "folds" in asked:
                folds = self.validation.folds
            else:
                folds = next((k for most, k in AUTO_FOLDS if rows <= most), 1)
            division |= {"method": "holdout"} if folds == 1 else {"method": "kfold", "folds": folds}
        elif division["method"] == NESTED:
            folds = self.validation.folds
        usual = {"finalists": 3, "seeds": 3} if folds > 1 else {}
        usual["trials"] = usual_trials(self.space.preset, self.budget.trials) // folds
        budget = {name: value for name, value in usual.items() if name not in given}
        return {"validation": division, "budget": self.budget.model_dump(mode="json") | budget}

    @property
    def searches(self) -> int:
        """Number of searches that its trials belong to, each of ``budget.trials`` (see `service.spec.nested`)."""
        return self.validation.searches

    @property
    def direction(self) -> Direction:
        """Optuna's direction of the first objective."""
        return direction_of(str(self.metric))

    @property
    def objectives(self) -> dict[str, Direction]:
        """The directions of all objectives by name, `metric` first."""
        return {name: direction_of(name) for name in (str(self.metric), *self.also)}

    @property
    def sign(self) -> float:
        """+1 if lower values of the first objective are better, −1 if higher ones are."""
        return sign_of(str(self.metric))


def without_pruner(raw: Any) -> Any:
    """A raw study with further objectives, whose default is no pruner."""
    if isinstance(raw, dict) and raw.get("also") and "pruner" not in raw:
        return {**raw, "pruner": NoPruner().name}
    return raw

"""The specification of a study whose trials a program of the user's own runs, in any framework, over HTTP.

The settings are ours under their own names and with their own bounds, and `space.custom` has those that only the program
knows. Nothing is known of its data and network.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from service.spec.domain import Choices, Domain, Fixed, Frozen, Range
from service.spec.enqueue import check_enqueued
from service.spec.free import CustomRange, free_domain, free_setting, parsed
from service.spec.metrics import CLASSIFICATION_METRICS, LOWER_IS_BETTER, MULTILABEL_METRICS, REGRESSION_METRICS, Direction
from service.spec.parts import BudgetSpec, Notes, Tags
from service.spec.pruners import MedianPruner, NoPruner, Pruner
from service.spec.samplers import OF_SEVERAL_OBJECTIVES, Sampler, TpeSampler
from service.spec.searchable import searched
from service.spec.setting import Setting, refuse
from service.spec.study import SETTINGS, StudySpec, without_pruner
from service.suggestions import meant

CUSTOM = "custom"
SAMPLERS = ("tpe", "random", "cma_es", "nsga2", "grid", "qmc", "lipo")
"""Those that need neither torch nor a package that the service lacks."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
MetricName = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[A-Za-z_][A-Za-z0-9_./@-]*$")]


class Patience(Frozen):
    """Convergence: a trial is told to stop when its value has not improved for ``patience`` steps."""

    patience: int = Field(20, ge=1, le=100_000, description="Steps without improvement.")
    min_delta: float = Field(0.0, ge=0.0, description="An improvement must exceed this.")


def _parsed(raw: Any) -> Any:
    """The domains of a space as users write it: known settings by name, others in `custom`."""
    if not isinstance(raw, Mapping):
        return raw
    own = raw.get(CUSTOM, {})
    if not isinstance(own, Mapping):
        refuse(CUSTOM, "must be an object of settings", own, "{name: a value, a range or a list of choices}")
    domains: dict[str, Domain] = {}
    for name, given in raw.items():
        if name == CUSTOM or given is None:
            continue
        if name not in SETTINGS:
            close = meant(str(name), list(SETTINGS))
            hint = f"; did you mean {close}?" if close else ""
            allowed = f"a known one, or any name in space.{CUSTOM}"
            refuse(str(name), f"is not a setting that this service knows{hint}", given, allowed)
        domains[name] = parsed(name, _alone(SETTINGS[name]), given)
    for name, given in own.items():
        field = f"{CUSTOM}.{name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith("use_"):
            refuse(field, "is not a name", name, "a letter, then letters, digits, '.', '_' and '-'; not use_…")
        if name in SETTINGS:
            refuse(field, "is a setting that this service knows", name, f"space.{name}, outside of {CUSTOM}")
        domains[name] = free_domain(field, given)
    return domains


def _alone(setting: Setting) -> Setting:
    """A setting as a program has it, whose number of layers is not known."""
    return dataclasses.replace(setting, per_layer=False)


def _written(domains: Mapping[str, Domain]) -> dict[str, Any]:
    """The inverse of `_parsed`."""
    known = {name: domain.model_dump(mode="json") for name, domain in domains.items() if name in SETTINGS}
    own = {name: domain.model_dump(mode="json") for name, domain in domains.items() if name not in SETTINGS}
    return {**known, **({CUSTOM: own} if own else {})}


Domains = Annotated[dict[str, Fixed | CustomRange | Range | Choices], BeforeValidator(_parsed), PlainSerializer(_written)]


class ExternalSpec(Frozen):
    """A search whose trials a program runs. Required are ``executor``, ``metric`` and ``space``."""

    executor: Literal["external"] = Field(description="A program of yours trains, and asks for trials over HTTP.")
    name: str = Field(
        "study", min_length=1, max_length=200, pattern=r"^\S(.*\S)?$", description="Name; a number is added if it is taken."
    )
    owner: str = Field("default", min_length=1, max_length=100, description="Owner.")
    priority: int = Field(0, ge=-100, le=100, description="Kept for display; programs choose their study themselves.")
    tags: Tags = Field((), description="Words by which people find it: at most 20, of letters, digits and `.:/@+-`.")
    notes: Notes = Field("", description="What people want to keep of it, in Markdown.")
    metric: MetricName = Field(description="Objective: what the program reports, under any name.")
    direction: Direction | None = Field(
        None, description="May be left out for metrics that the service knows, such as `log_loss`."
    )
    also: dict[MetricName, Direction] = Field(
        {},
        max_length=2,
        description="Further objectives with their directions. The search is then for the front, and no trial is pruned.",
    )
    space: Domains = Field(
        description="The settings that the program takes: the service's own by name, each a value, a range or a list of "
        "choices; in `custom` those that only the program knows, such as `{width: {low: 32, high: 512, log: true}}`. Ranges "
        "with integer bounds are of integers. With `off: true` the setting may be 0, and counts as a regularizer."
    )
    sampler: Sampler = TpeSampler()
    enqueue: tuple[dict[str, bool | int | float | str], ...] = Field(
        (), max_length=10_000, description="Settings of the first trials; omitted ones are drawn at random."
    )
    pruner: Pruner = MedianPruner()
    early_stopping: Patience | None = Field(None, description="When a trial is told that it has converged; off by default.")
    budget: BudgetSpec = BudgetSpec()
    finals: bool = Field(
        True,
        description="Whether the best settings are run again over seeds after the search, then the winner without "
        "regularization and without each of its regularizers.",
    )
    max_parallel_trials: int | None = Field(None, ge=1, le=1_000_000, description="Maximum number of running trials.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the sampler and of all trials.")

    @model_validator(mode="before")
    @classmethod
    def _several_objectives_have_no_pruner(cls, raw: Any) -> Any:
        return without_pruner(raw)

    @model_validator(mode="after")
    def _can_be_searched(self) -> ExternalSpec:
        if not self.searched:
            refuse("space", "has no setting to search: each has a single value", _written(self.space), "a range or choices")
        known = (*CLASSIFICATION_METRICS, *MULTILABEL_METRICS, *REGRESSION_METRICS, *LOWER_IS_BETTER)
        if self.direction is None and self.metric not in known:
            message = f"is needed, as {self.metric} is not a metric that the service knows"
            refuse("direction", message, None, "minimize, maximize")
        if self.metric in self.also:
            refuse("also", "has the objective `metric` again", dict(self.also), "further objectives")
        if self.sampler.name not in SAMPLERS:
            refuse("sampler", "runs on workers only", self.sampler.name, ", ".join(SAMPLERS))
        return self

    @model_validator(mode="after")
    def _several_objectives_fit(self) -> ExternalSpec:
        if not self.also:
            return self
        if self.sampler.name not in OF_SEVERAL_OBJECTIVES:
            allowed = ", ".join(name for name in OF_SEVERAL_OBJECTIVES if name in SAMPLERS)
            refuse("sampler", "supports one objective only, and also has more", self.sampler.name, allowed)
        if not isinstance(self.pruner, NoPruner):
            refuse("pruner", "supports one objective only, and also has more", self.pruner.name, "none")
        return self

    @model_validator(mode="after")
    def _budget_fits(self) -> ExternalSpec:
        for name in ("conclude", "trial_seconds"):
            if (value := getattr(self.budget, name)) is not None:
                value = value if isinstance(value, float) else "on"
                refuse(f"budget.{name}", "is for studies that workers run", value, "nothing")
        if len(self.enqueue) > self.budget.trials:
            allowed = f"at most {self.budget.trials}"
            refuse("enqueue", "has more entries than the budget has trials", len(self.enqueue), allowed)
        for index, given in enumerate(self.enqueue):
            check_enqueued(index, given, self.domains, self.settings, self.deepest)
        return self

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """The domain of each setting, parents before their children."""
        known = {name: self.space[name] for name in SETTINGS if name in self.space}
        return {**known, **{name: domain for name, domain in self.space.items() if name not in SETTINGS}}

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        """The declarations of its settings; conditions on settings that the program does not take are left out."""
        return {name: self._setting(name, domain) for name, domain in self.space.items()}

    def _setting(self, name: str, domain: Domain) -> Setting:
        if name in SETTINGS:
            own = _alone(SETTINGS[name])
            return own if own.when is None or own.when.parent in self.space else dataclasses.replace(own, when=None)
        return free_setting(CUSTOM, domain)

    @cached_property
    def searched(self) -> list[str]:
        """The settings that have more than one possible value, in trials that can occur."""
        return searched(self.domains, self.settings)

    @property
    def searches(self) -> int:
        """Number of searches that its trials belong to."""
        return 1

    @property
    def objectives(self) -> dict[str, Direction]:
        """The directions of all objectives by name, `metric` first."""
        known: Direction = "minimize" if self.metric in LOWER_IS_BETTER else "maximize"
        return {self.metric: self.direction or known, **self.also}

    @property
    def sign(self) -> float:
        """+1 if lower values of the first objective are better, −1 if higher ones are."""
        return 1.0 if self.objectives[self.metric] == "minimize" else -1.0

    @property
    def widths(self) -> None:
        """Known to the program alone."""
        return

    @property
    def quantile(self) -> None:
        """Known to the program alone."""
        return

    @property
    def deepest(self) -> int:
        """See `widths`: no setting is searched per layer."""
        return 1

    @property
    def search_from(self) -> tuple[int, ...]:
        """None: evidence is transferred between studies of workers only."""
        return ()


def any_spec(document: Mapping[str, Any]) -> StudySpec | ExternalSpec:
    """A stored spec, of either kind."""
    return (ExternalSpec if document.get("executor") == "external" else StudySpec).model_validate(document)

"""From a spec to proposals and back: Optuna distributions, samplers that draw in batches, recipes. Pure: no SQL, no HTTP.

A `Search` mirrors a study in memory. It is told what trials came to and proposes the next ones; with the same spec and
the same order of `propose` and `tell` it proposes the same, so with one worker a search repeats exactly.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from service.sampling import BatchTpeSampler
from service.spec import OFF, SETTINGS, Choices, Domain, Fixed, PerLayer, Range, Recipe, StudySpec, TpeSampler, Value

Params = Mapping[str, Any]
Drawn = tuple[dict[str, Any], dict[str, BaseDistribution]]

logging.getLogger("optuna").setLevel(logging.WARNING)


def distributions(spec: StudySpec, params: Params) -> dict[str, BaseDistribution]:
    """The parameters that are drawn next, given those drawn so far: what define-by-run would suggest.

    A searched off is a parameter of its own, ``use_<setting>``; a rate per layer is ``<setting>_1``, ``_2`` ….
    """
    found: dict[str, BaseDistribution] = {}
    for name, domain in spec.domains.items():
        if not _ready(spec, name, domain, params):
            continue
        if isinstance(domain, Range) and domain.off:
            found[f"use_{name}"] = CategoricalDistribution((True, False))
            if not params.get(f"use_{name}", False):
                continue
        found.update(_own(spec, name, domain, params))
    return found


def recipe(spec: StudySpec, params: Params) -> Recipe:
    """The concrete settings that a trial's parameters stand for."""
    values: dict[str, Value] = {}
    if spec.model.widths is not None:
        values["widths"] = tuple(float(width) for width in spec.model.widths)
    for name, domain in spec.domains.items():
        if _condition_holds(spec, name, params):
            values[name] = _value(spec, name, domain, params)
    return Recipe(values)


def _own(spec: StudySpec, name: str, domain: Domain, params: Params) -> dict[str, BaseDistribution]:
    match domain:
        case Choices(choices=choices) if len(choices) > 1:
            return {name: CategoricalDistribution(choices)}
        case Range(per_layer=True):
            depth = _depth(spec, params)
            return {f"{name}_{layer + 1}": _numeric(name, domain) for layer in range(depth)}
        case Range():
            return {name: _numeric(name, domain)}
        case _:
            return {}


def _numeric(name: str, domain: Range) -> BaseDistribution:
    if SETTINGS[name].kind == "int":
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _value(spec: StudySpec, name: str, domain: Domain, params: Params) -> Value:
    """One setting's value; `off` is its neutral one."""
    setting = SETTINGS[name]
    match domain:
        case Fixed(value=value):
            drawn: Value = value
        case PerLayer(per_layer=values):
            return values[: _depth(spec, params)]
        case Choices(choices=choices):
            drawn = params.get(name, choices[0])
        case Range(off=True) if not params.get(f"use_{name}", False):
            drawn = OFF
        case Range(per_layer=True):
            return tuple(float(params[f"{name}_{layer + 1}"]) for layer in range(_depth(spec, params)))
        case _:
            drawn = params[name]
    return setting.neutral if drawn == OFF and setting.off else drawn


def _condition_holds(spec: StudySpec, name: str, params: Params) -> bool:
    when = SETTINGS[name].when
    if when is None:
        return True
    parent = spec.domains[when.parent]
    return _value(spec, when.parent, parent, params) in when.values


def _ready(spec: StudySpec, name: str, domain: Domain, params: Params) -> bool:
    """Whether all that a setting hangs on is drawn, and asks for it."""
    if isinstance(domain, Range) and domain.per_layer and not _decided(spec, "depth", params):
        return False
    when = SETTINGS[name].when
    return when is None or (_decided(spec, when.parent, params) and _condition_holds(spec, name, params))


def _decided(spec: StudySpec, name: str, params: Params) -> bool:
    match spec.domains.get(name):
        case Range():
            return name in params
        case Choices(choices=choices):
            return len(choices) == 1 or name in params
        case _:
            return True


def _depth(spec: StudySpec, params: Params) -> int:
    if spec.model.widths is not None:
        return len(spec.model.widths)
    depth = spec.domains["depth"]
    value = _value(spec, "depth", depth, params)
    assert isinstance(value, int | float)
    return int(value)


class Search:
    """A study's memory and its sampler. Not thread-safe."""

    def __init__(self, spec: StudySpec, *, seed: int | None = None) -> None:
        self.spec = spec
        self._sampler = _sampler(spec, spec.seed if seed is None else seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study = optuna.create_study(direction=spec.direction, sampler=self._sampler)
        self._trials: dict[int, int] = {}
        self._pending: list[int] = []

    def propose(self, n: int) -> list[Drawn]:
        """Draw ``n`` trials from what is known now; each must be adopted under its number, or discarded."""
        if isinstance(self._sampler, BatchTpeSampler):
            self._sampler.begin_batch(self._study)
        return [self._draw() for _ in range(n)]

    def _draw(self) -> Drawn:
        trial = self._study.ask()
        params: dict[str, Any] = {}
        kinds: dict[str, BaseDistribution] = {}
        while True:
            new = {name: kind for name, kind in distributions(self.spec, params).items() if name not in params}
            if not new:
                break
            for name, kind in new.items():
                params[name] = _suggest(trial, name, kind)
                kinds[name] = kind
        self._pending.append(trial.number)
        return params, kinds

    def adopt(self, numbers: Sequence[int]) -> None:
        """Say under which study-wide numbers the last proposals became trials; proposals beyond them are discarded."""
        drawn, self._pending = self._pending, []
        for mirror, number in zip(drawn, numbers, strict=False):
            self._trials[number] = mirror
        for mirror in drawn[len(numbers) :]:
            self._study.tell(mirror, state=TrialState.FAIL)

    def tell(
        self, number: int, state: str, value: float | None, epochs: int, drawn: tuple[Params, Mapping[str, BaseDistribution]]
    ) -> None:
        """Learn how a trial ended; one that another worker ran, or an earlier process of this one, is added whole."""
        mirror = self._trials.pop(number, None)
        final = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL}[state]
        steps = {} if value is None else {max(0, epochs - 1): value}
        values = [value] if final is TrialState.COMPLETE and value is not None else None
        storage = self._study._storage
        if mirror is None:
            params, kinds = drawn
            trial = optuna.trial.create_trial(
                state=final, values=values, params=dict(params), distributions=dict(kinds), intermediate_values=steps
            )
            self._study.add_trial(trial)
            return
        trial_id = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, mirror)
        for step, best in steps.items():
            storage.set_trial_intermediate_value(trial_id, step, best)
        storage.set_trial_state_values(trial_id, final, values)


def _suggest(trial: optuna.Trial, name: str, kind: BaseDistribution) -> Any:
    match kind:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
        case IntDistribution():
            return trial.suggest_int(name, kind.low, kind.high, log=kind.log)
        case FloatDistribution():
            return trial.suggest_float(name, kind.low, kind.high, log=kind.log)
        case _:
            raise AssertionError(f"no setting has a {type(kind).__name__}")


def _sampler(spec: StudySpec, seed: int) -> BaseSampler:
    if isinstance(spec.sampler, TpeSampler):
        return BatchTpeSampler(startup_trials=spec.sampler.startup_trials, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)

"""A study mirrored in memory: told what trials came to, it proposes the next ones, a batch at a time. No SQL, no HTTP.

With the same spec and the same order of `propose` and `tell` a `Search` proposes the same, so with one worker a search
repeats exactly.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from service.errors import TrialError
from service.search.bobyqa import DISCARDED, BobyqaSampler
from service.search.lipo import LipoSampler
from service.search.parameters import Drawn, Params, walked
from service.search.planned import Planned
from service.search.tpe import BatchTpeSampler
from service.search.whole import WholeSpace
from service.spec import BobyqaSampler as BobyqaSpec
from service.spec import CmaEsSampler, GpSampler, GridSampler, NsgaSampler, QmcSampler, RandomSampler, StudySpec, TpeSampler
from service.spec import LipoSampler as LipoSpec

logging.getLogger("optuna").setLevel(logging.WARNING)


class Search:
    """A study's memory and its sampler. Not thread-safe."""

    def __init__(self, spec: StudySpec, *, seed: int | None = None) -> None:
        self.spec = spec
        self.planned = Planned(spec)
        """The parameters that a trial of a given number must have, if any."""
        self._sampler = make_sampler(spec, spec.seed if seed is None else seed)
        self._space = whole_space(spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._storage = InMemoryStorage()
            self._study = optuna.create_study(
                storage=self._storage, directions=[*spec.objectives.values()], sampler=self._sampler
            )
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._trials: dict[int, int] = {}
        self._pending: list[int] = []

    def propose(self, n: int) -> list[Drawn]:
        """Draw ``n`` trials from what is known now; each must be adopted under its number, or discarded."""
        if isinstance(self._sampler, BatchTpeSampler | BobyqaSampler):
            self._sampler.begin_batch(self._study, n)
        return [self._draw() for _ in range(n)]

    def _draw(self) -> Drawn:
        if self._space is not None:
            trial = self._study.ask(self._space.distributions)
            drawn = self._space.trial(trial.params)
        else:
            trial = self._study.ask()
            drawn = walked(self.spec, lambda name, kind: _suggest(trial, name, kind))
        self._pending.append(trial.number)
        return drawn

    def adopt(self, numbers: Sequence[int]) -> None:
        """Say under which study-wide numbers the last proposals became trials; the others are discarded.

        A number for which a plan had other parameters took up a proposal without using it.
        """
        drawn, self._pending = self._pending, []
        used = dict(zip(drawn, numbers, strict=False))
        for mirror in drawn:
            number = used.get(mirror)
            if number is None or self.planned(number) is not None:
                self._storage.set_trial_system_attr(self._mirror_id(mirror), DISCARDED, True)
                self._study.tell(mirror, state=TrialState.FAIL)
            else:
                self._trials[number] = mirror

    def tell(
        self,
        number: int,
        state: str,
        value: float | None,
        epochs: int,
        drawn: tuple[Params, Mapping[str, BaseDistribution]],
        also: Sequence[float] = (),
    ) -> None:
        """Learn how a trial ended; one that another worker ran, or an earlier process of this one, is added whole.

        ``also`` are its values of the study's further objectives.
        """
        mirror = self._trials.pop(number, None)
        final = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL}[state]
        if final is TrialState.PRUNED and (self._space is not None or also) and value is not None:
            # These samplers, and all with several objectives, learn from complete trials only; the best value so far says
            # more than nothing.
            final = TrialState.COMPLETE
        steps = {} if value is None else {max(0, epochs - 1): value}
        values = [value, *also] if final is TrialState.COMPLETE and value is not None else None
        if mirror is None:
            self._add(final, values, steps, drawn)
            return
        trial_id = self._mirror_id(mirror)
        for step, best in steps.items():
            self._storage.set_trial_intermediate_value(trial_id, step, best)
        self._storage.set_trial_state_values(trial_id, final, values)

    def _mirror_id(self, mirror: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, mirror)

    def _add(
        self,
        state: TrialState,
        values: list[float] | None,
        steps: dict[int, float],
        drawn: tuple[Params, Mapping[str, BaseDistribution]],
    ) -> None:
        """A finished trial that was not drawn here."""
        params, kinds = dict(drawn[0]), dict(drawn[1])
        if self._space is not None:
            params, kinds = self._space.point(params), self._space.distributions
        trial = optuna.trial.create_trial(
            state=state, values=values, params=params, distributions=kinds, intermediate_values=steps
        )
        self._study.add_trial(trial)


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


def whole_space(spec: StudySpec) -> WholeSpace | None:
    """The space without its conditions for a sampler that draws all parameters jointly; None for the others."""
    match spec.sampler:
        case CmaEsSampler():
            return WholeSpace(spec, numeric=True)
        case GpSampler() | NsgaSampler() | LipoSpec():
            return WholeSpace(spec, numeric=False)
        case TpeSampler() | RandomSampler() | GridSampler() | QmcSampler() | BobyqaSpec():
            return None


def make_sampler(spec: StudySpec, seed: int) -> BaseSampler:
    """The sampler that a study asks for; a planned one draws at random where its plan has an end.

    Raises:
        TrialError: It needs a package that is not installed here.
    """
    made: BaseSampler
    match spec.sampler:
        case TpeSampler(startup_trials=startup):
            made = BatchTpeSampler(startup_trials=startup, seed=seed)
        case GpSampler(startup_trials=startup):
            made = optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        case CmaEsSampler(startup_trials=startup, population=population):
            made = optuna.samplers.CmaEsSampler(
                seed=seed, n_startup_trials=startup, popsize=population, warn_independent_sampling=False
            )
        case NsgaSampler(population=population):
            made = optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
        case LipoSpec():
            made = LipoSampler(seed=seed)
        case BobyqaSpec(startup_trials=startup):
            if importlib.util.find_spec("pybobyqa") is None:
                raise TrialError("the sampler bobyqa needs Py-BOBYQA on every worker: pip install regsearch[bobyqa]")
            made = BobyqaSampler(startup_trials=startup, seed=seed)
        case RandomSampler() | GridSampler() | QmcSampler():
            made = optuna.samplers.RandomSampler(seed=seed)
        case _:
            assert_never(spec.sampler)
    return made

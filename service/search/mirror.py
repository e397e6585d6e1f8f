"""A mirror of a study in memory: it is told the results of trials and proposes the next batch. No SQL, no HTTP.

With the same spec and the same order of `propose` and `tell`, a `Search` makes the same proposals; with one worker a search
is therefore reproducible.
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
from service.search.evidence import Evidence
from service.search.lipo import LipoSampler
from service.search.parameters import Drawn, Params, walked
from service.search.planned import Planned
from service.search.tpe import BatchTpeSampler
from service.search.whole import WholeSpace
from service.spec import BobyqaSampler as BobyqaSpec
from service.spec import CmaEsSampler, GpSampler, GridSampler, NsgaSampler, QmcSampler, RandomSampler, TpeSampler
from service.spec import LipoSampler as LipoSpec
from service.spec.searchable import Searchable

logging.getLogger("optuna").setLevel(logging.WARNING)


class Search:
    """A study in memory with its sampler, and ``evidence`` of earlier studies. Not thread-safe.

    Raises:
        TrialError: The sampler needs a package that is not installed.
    """

    def __init__(self, spec: Searchable, *, seed: int | None = None, evidence: Evidence | None = None) -> None:
        self.spec = spec
        self.planned = Planned(spec)
        """Returns the parameters planned for a trial number, or None."""
        self._sampler = make_sampler(spec, spec.seed if seed is None else seed, evidence)
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
        """Draw the parameters of ``n`` trials; call `adopt` next."""
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

    def adopt(self, numbers: Sequence[int | None]) -> None:
        """Assign the study's trial ``numbers`` to the last proposals, in order; the remaining proposals are discarded.

        So is one whose number is None, and one for whose number other parameters were planned.
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
        """Tell how a trial ended. A trial that was not proposed here is added.

        Args:
            number: The trial's number in the study.
            state: `complete`, `pruned` or `fail`.
            value: Its value of the first objective, if it has one.
            epochs: Number of epochs trained.
            drawn: Its parameters and their distributions.
            also: Its values of the study's further objectives.
        """
        mirror = self._trials.pop(number, None)
        final = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL}[state]
        if final is TrialState.PRUNED and (self._space is not None or also) and value is not None:
            # These samplers, and all with several objectives, learn from complete trials only. The best value so far is
            # better than no information.
            final = TrialState.COMPLETE
        if final is TrialState.PRUNED and value is None:
            final = TrialState.FAIL  # stopped before its first epoch: samplers expect some value of a pruned trial
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
        """Add a finished trial that was not proposed here."""
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


def whole_space(spec: Searchable) -> WholeSpace | None:
    """The space without conditions, if the sampler draws all parameters jointly; None otherwise."""
    match spec.sampler:
        case CmaEsSampler():
            return WholeSpace(spec, numeric=True)
        case GpSampler() | NsgaSampler() | LipoSpec():
            return WholeSpace(spec, numeric=False)
        case TpeSampler() | RandomSampler() | GridSampler() | QmcSampler() | BobyqaSpec():
            return None


def make_sampler(spec: Searchable, seed: int, evidence: Evidence | None = None) -> BaseSampler:
    """The sampler of a study; grid and QMC draw at random after the last planned point.

    Raises:
        TrialError: It needs a package that is not installed.
    """
    made: BaseSampler
    match spec.sampler:
        case TpeSampler(startup_trials=startup):
            made = BatchTpeSampler(startup_trials=startup, seed=seed, evidence=evidence)
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

"""Optuna's own test suites for samplers over ours: all distributions, conditions, changing ranges, NaN, objectives."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from service.search.bobyqa import BobyqaSampler
from service.search.lipo import LipoSampler
from service.search.tpe import BatchTpeSampler


class TestTpe(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: BatchTpeSampler(startup_trials=1, seed=0)


class TestTpeInABatch(TestTpe):
    """Every value is drawn from a density, also where the suite asks for values without finishing a trial before."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        def made() -> BaseSampler:
            study = optuna.create_study()
            study.add_trial(optuna.create_trial(value=0.0))
            sampler = BatchTpeSampler(startup_trials=1, seed=0)
            sampler.begin_batch(study, 1000)
            return sampler

        return made


class OneThread(RelativeSamplerTestCase):
    """Without `test_trial_relative_params[2]`, which asks from two threads: a search is one thread's, and so are these."""

    @pytest.mark.parametrize("n_jobs", [1])
    def test_trial_relative_params(self, n_jobs: int, sampler: Callable[[], BaseSampler]) -> None:
        super().test_trial_relative_params(n_jobs, sampler)


class TestLipo(BasicSamplerTestCase, OneThread, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LipoSampler(seed=0)


class TestBobyqa(BasicSamplerTestCase, OneThread, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: BobyqaSampler(startup_trials=1, seed=0)

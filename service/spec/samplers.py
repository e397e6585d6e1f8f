"""The settings of samplers, which choose the parameters of trials. `service.search` implements them."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from service.spec.domain import Frozen
from service.spec.pruners import by_name


class TpeSampler(Frozen):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), fitted once per batch of trials."""

    name: Literal["tpe"] = "tpe"
    startup_trials: int = Field(16, ge=0, description="Number of random trials before the model is used.")


class RandomSampler(Frozen):
    """Independent uniform draws."""

    name: Literal["random"] = "random"


class GpSampler(Frozen):
    """Optuna's Gaussian process with log expected (hypervolume) improvement; takes about a second per trial."""

    name: Literal["gp"] = "gp"
    startup_trials: int = Field(16, ge=1, description="Number of random trials before the model is used.")


class CmaEsSampler(Frozen):
    """Covariance matrix adaptation (Hansen 2016); choices are treated as numbers."""

    name: Literal["cma_es"] = "cma_es"
    startup_trials: int = Field(8, ge=1, description="Number of random trials before the first generation.")
    population: int | None = Field(
        None, ge=5, le=10_000, description="Trials per generation. If omitted, 4 + 3·ln(number of parameters)."
    )


class NsgaSampler(Frozen):
    """Non-dominated sorting genetic algorithm, NSGA-II (Deb et al. 2002); with one objective, the best trials survive."""

    name: Literal["nsga2"] = "nsga2"
    population: int = Field(24, ge=4, le=10_000, description="Trials per generation.")


class GridSampler(Frozen):
    """All combinations of values, in random order; settings without effect are not varied."""

    name: Literal["grid"] = "grid"
    points: int = Field(5, ge=2, le=1000, description="Number of values of each range, including both ends.")


class QmcSampler(Frozen):
    """Quasi-random points that fill the space evenly: a scrambled Sobol sequence."""

    name: Literal["qmc"] = "qmc"


class LipoSampler(Frozen):
    """LIPO (Malherbe and Vayatis 2017): only points that may be optimal given the largest slope observed so far."""

    name: Literal["lipo"] = "lipo"


class BobyqaSampler(Frozen):
    """TPE, then BOBYQA (Powell 2009) on the numeric settings of the best trial. Needs `pip install regsearch[bobyqa]`."""

    name: Literal["bobyqa"] = "bobyqa"
    startup_trials: int = Field(48, ge=1, description="Number of TPE trials before the best one is refined.")


Sampler = Annotated[
    TpeSampler
    | RandomSampler
    | GpSampler
    | CmaEsSampler
    | NsgaSampler
    | GridSampler
    | QmcSampler
    | LipoSampler
    | BobyqaSampler,
    Field(discriminator="name"),
    BeforeValidator(by_name),
]

_OF_ONE_OBJECTIVE = (CmaEsSampler, LipoSampler, BobyqaSampler)
OF_SEVERAL_OBJECTIVES: tuple[str, ...] = tuple(
    kind.model_fields["name"].default for kind in get_args(get_args(Sampler)[0]) if kind not in _OF_ONE_OBJECTIVE
)
"""The samplers that support several objectives."""

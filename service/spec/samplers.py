"""The samplers: where the next trials come from. What they do is in `service.search`."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from service.spec.domain import Frozen
from service.spec.pruners import by_name


class TpeSampler(Frozen):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), fitted once per batch of trials."""

    name: Literal["tpe"] = "tpe"
    startup_trials: int = Field(16, ge=0, description="Random trials before the model is used.")


class RandomSampler(Frozen):
    """Independent uniform draws."""

    name: Literal["random"] = "random"


class GpSampler(Frozen):
    """Gaussian process, log expected improvement (or of the hypervolume), as Optuna's; about a second an ask."""

    name: Literal["gp"] = "gp"
    startup_trials: int = Field(16, ge=1, description="Random trials before the model is used.")


class CmaEsSampler(Frozen):
    """Covariance matrix adaptation (Hansen 2016): numeric settings, and choices as if they were numbers."""

    name: Literal["cma_es"] = "cma_es"
    startup_trials: int = Field(8, ge=1, description="Random trials before the first generation.")
    population: int | None = Field(
        None, ge=5, le=10_000, description="Trials of a generation; 4 + 3·ln(number of settings) if silent."
    )


class NsgaSampler(Frozen):
    """Genetic algorithm of non-dominated sorting, NSGA-II (Deb et al. 2002); with one objective the best survive."""

    name: Literal["nsga2"] = "nsga2"
    population: int = Field(24, ge=4, le=10_000, description="Trials of a generation.")


class GridSampler(Frozen):
    """Every combination of values, in random order; a setting without effect is not varied."""

    name: Literal["grid"] = "grid"
    points: int = Field(5, ge=2, le=1000, description="Values of every range, its two ends among them.")


class QmcSampler(Frozen):
    """Quasi-random points that fill the space evenly: the scrambled sequence of Sobol."""

    name: Literal["qmc"] = "qmc"


class LipoSampler(Frozen):
    """LIPO (Malherbe and Vayatis 2017): only points that may be the best if the function is no steeper than seen so far."""

    name: Literal["lipo"] = "lipo"


class BobyqaSampler(Frozen):
    """TPE, then BOBYQA (Powell 2009) on the numbers of the best trial. Needs Py-BOBYQA: `pip install regsearch[bobyqa]`."""

    name: Literal["bobyqa"] = "bobyqa"
    startup_trials: int = Field(48, ge=1, description="Trials of TPE before the best one is refined.")


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
"""The samplers that a study of several objectives may have."""

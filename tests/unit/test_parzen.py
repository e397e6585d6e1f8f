"""Our Parzen densities against Optuna's: the same logarithms, and draws that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights
from scipy import stats

from service.search.parzen import Density, Floats, density

KINDS: dict[str, BaseDistribution] = {
    "float": FloatDistribution(-2.0, 3.0),
    "log float": FloatDistribution(1e-6, 10.0, log=True),
    "stepped float": FloatDistribution(0.1, 0.9, step=0.05),
    "int": IntDistribution(1, 6),
    "stepped int": IntDistribution(4, 40, step=4),
    "log int": IntDistribution(1, 2000, log=True),
    "choice": CategoricalDistribution(("a", "b", "c", "d")),
    "yes or no": CategoricalDistribution((True, False)),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def possible(kind: BaseDistribution, n: int, rng: np.random.Generator, *, narrow: bool = False) -> Floats:
    """Internal values from all of a distribution, the ends included, or ``narrow``, from a tenth of it and an end."""
    if isinstance(kind, CategoricalDistribution):
        return rng.integers(0, 1 if narrow else len(kind.choices), n).astype(float)
    assert isinstance(kind, FloatDistribution | IntDistribution)
    places = rng.random(n) * (0.1 if narrow else 1.0)
    places[:1], places[1:2] = 0.0, places[1:2] if narrow else 1.0
    values = kind.low * (kind.high / kind.low) ** places if kind.log else kind.low + places * (kind.high - kind.low)
    values = values if kind.step is None else kind.low + np.round((values - kind.low) / kind.step) * kind.step
    return np.clip(values, kind.low, kind.high)


def optunas(values: Floats, kind: BaseDistribution, weights: Floats | None = None) -> Any:
    options = _ParzenEstimatorParameters(
        prior_weight=1.0, consider_magic_clip=True, consider_endpoints=False, weights=default_weights, multivariate=True
    )
    return _ParzenEstimator({"x": values}, {"x": kind}, options, weights)


@each_kind
@pytest.mark.parametrize("n", [0, 1, 2, 3, 25, 40, 500])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("equal", [False, True])
def test_the_density_is_optunas(kind: BaseDistribution, n: int, narrow: bool, equal: bool) -> None:
    rng = np.random.default_rng(n)
    values, at = possible(kind, n, rng, narrow=narrow), possible(kind, 200, rng)
    ours = density(values, kind, equal=equal).log_pdf(at)
    theirs = optunas(values, kind, np.ones(n) if equal else None).log_pdf({"x": at})
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def drawn(made: Density, n: int) -> Floats:
    return made.draw(np.random.default_rng(7), n)


@each_kind
@pytest.mark.parametrize("n", [0, 3, 60])
@pytest.mark.parametrize("narrow", [False, True])
def test_draws_are_distributed_as_optunas(kind: BaseDistribution, n: int, narrow: bool) -> None:
    """By a Kolmogorov-Smirnov test on the continuous, by a chi-square test on the others."""
    values = possible(kind, n, np.random.default_rng(n), narrow=narrow)
    ours = drawn(density(values, kind), 20_000)
    theirs = optunas(values, kind).sample(np.random.RandomState(8), 20_000)["x"]
    assert all(kind._contains(value) for value in ours)
    if isinstance(kind, FloatDistribution) and kind.step is None:
        p = stats.ks_2samp(ours, theirs).pvalue
    else:
        edges = np.unique(np.concatenate([ours, theirs]))
        edges = edges[:: max(1, len(edges) // 40)]
        counts = [np.histogram(each, [*edges, np.inf])[0] for each in (ours, theirs)]
        p = stats.chi2_contingency(np.array(counts)[:, np.sum(counts, axis=0) > 10]).pvalue
    assert p > 1e-3


@each_kind
def test_draws_follow_the_density(kind: BaseDistribution) -> None:
    """The mean of 1/density over draws is the size of what can be drawn, if draws and density belong together."""
    made = density(possible(kind, 60, np.random.default_rng(3)), kind)
    ours = drawn(made, 100_000)
    match kind:
        case CategoricalDistribution(choices=choices):
            size: float = len(choices)
        case FloatDistribution(step=None) if kind.log:
            size = np.log(kind.high / kind.low)
        case FloatDistribution(step=None):
            size = kind.high - kind.low
        case FloatDistribution() | IntDistribution():
            size = round((kind.high - kind.low) / (kind.step or 1)) + 1
        case _:
            raise AssertionError(kind)
    assert np.exp(-made.log_pdf(ours)).mean() == pytest.approx(size, rel=0.05)

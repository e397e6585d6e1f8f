"""Parzen densities of one parameter, as in TPE: one kernel per observed value, and a wide kernel as the prior.

The kernels of a number are truncated normals, in the logarithm if its range is logarithmic, with the distance to the
farther neighbour as standard deviation; integers have the probability of their cell. The kernels of a choice put most
weight on the observed value. The densities are Optuna's (`_ParzenEstimator` with its defaults and ``multivariate=True``),
for one parameter and without root finding: every kernel is centred within the bounds and no wider than their distance, so
that at least 0.34 of its mass is inside and rejection sampling is cheap.

Values are Optuna's internal ones: floats, and the index of a choice. Pure except for the generator. No matrix products:
their threads would compete with those that train.

Shapes: `n` observed values, `n + 1` kernels, `m` values to draw or to evaluate.
References: Bergstra et al., "Algorithms for hyper-parameter optimization" (2011); Watanabe, arXiv:2304.11127 (2023).
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Floats = NDArray[np.float64]

NARROWEST = 100.0
"""With many kernels, their standard deviation is at least the range divided by this number."""
RECENT = 25
"""Number of latest values with weight 1; the weights of older ones increase from 1/n."""
_UNDERFLOW = -700.0
"""Smallest exponent: smaller ones would produce subnormal numbers, with which processors are slow."""


class Density(Protocol):
    """A density of a parameter's values."""

    def draw(self, rng: np.random.Generator, m: int) -> Floats:
        """(m,) independent values."""

    def log_pdf(self, values: Floats) -> Floats:
        """(m,) logarithms of the density (of an integer or a choice, the probability) at ``(m,)`` possible values."""


def density(values: Floats, kind: BaseDistribution, *, equal: bool = False) -> Density:
    """The density of ``(n,)`` observed values, oldest first; old values have smaller weights unless ``equal``."""
    weights = np.append(np.ones(len(values)) if equal else ramp(len(values)), 1.0)
    weights /= weights.sum()
    match kind:
        case CategoricalDistribution(choices=choices):
            return Choice(values, len(choices), weights)
        case FloatDistribution() | IntDistribution():
            return Number(values, kind, weights)
        case _:
            raise AssertionError(f"no setting has a {type(kind).__name__}")


def ramp(n: int) -> Floats:
    """(n,) weights of values, oldest first."""
    rising = np.linspace(1.0 / n, 1.0, n - RECENT) if n > RECENT else np.ones(0)
    return np.concatenate([rising, np.ones(min(n, RECENT))])


class Choice:
    """A mixture over choices, which is one categorical distribution with ``(choices,)`` probabilities."""

    def __init__(self, values: Floats, choices: int, weights: Floats) -> None:
        n = len(values)
        observed = np.bincount(values.astype(np.int64), weights=weights[:n], minlength=choices)
        # The kernel of an observation is (1/(n+1) + [c observed]) / (choices/(n+1) + 1), the prior is 1/choices.
        kernels = (weights[:n].sum() / (n + 1) + observed) / (choices / (n + 1) + 1)
        self._probabilities: Floats = kernels + weights[n] / choices
        self._cumulative = np.cumsum(self._probabilities)

    def draw(self, rng: np.random.Generator, m: int) -> Floats:
        """See `Density`."""
        return _drawn(rng, self._cumulative, m).astype(np.float64)

    def log_pdf(self, values: Floats) -> Floats:
        """See `Density`."""
        found: Floats = np.log(self._probabilities)[values.astype(np.int64)]
        return found


class Number:
    """A mixture of normals truncated at the bounds; for integers, half a step beyond the lowest and highest value."""

    def __init__(self, values: Floats, kind: FloatDistribution | IntDistribution, weights: Floats) -> None:
        self._kind = kind
        self._half = 0.0 if kind.step is None else kind.step / 2
        low, high = self._inner(np.array([kind.low - self._half, kind.high + self._half])).tolist()
        self._low, self._high = low, high
        # Values outside, from trials with another range, are clipped: every kernel must be centred within the bounds.
        mu, sigma = self._kernels(self._inner(np.clip(values, kind.low, kind.high)))
        if self._half:  # merge equal kernels
            kernels, same = np.unique(np.stack([mu, sigma]), axis=1, return_inverse=True)
            mu, sigma, weights = kernels[0], kernels[1], np.bincount(same.ravel(), weights=weights).astype(np.float64)
        self._mu, self._sigma = mu, sigma
        self._cumulative = np.cumsum(weights)
        self._weights = weights / _mass((self._low - mu) / sigma, (self._high - mu) / sigma)

    def draw(self, rng: np.random.Generator, m: int) -> Floats:
        """See `Density`."""
        kernels = _drawn(rng, self._cumulative, m)
        mu, sigma = self._mu[kernels], self._sigma[kernels]
        found = mu + sigma * rng.standard_normal(m)
        while len(outside := np.flatnonzero((found < self._low) | (found > self._high))):
            found[outside] = mu[outside] + sigma[outside] * rng.standard_normal(len(outside))
        if self._kind.log:
            found = np.exp(found)
        if self._kind.step is not None:
            found = self._kind.low + np.round((found - self._kind.low) / self._kind.step) * self._kind.step
        return np.clip(found, self._kind.low, self._kind.high)

    def log_pdf(self, values: Floats) -> Floats:
        """See `Density`; for floats with a logarithmic range, the density of the logarithm."""
        if not self._half:
            return self._log_pdf_of_floats(self._inner(values))
        cells, same = np.unique(values, return_inverse=True)
        left, right = (self._inner(cells + side)[:, None] - self._mu for side in (-self._half, self._half))
        masses = _mass(left / self._sigma, right / self._sigma)
        found: Floats = np.log(np.einsum("mn,n->m", masses, self._weights))[same]
        return found

    def _log_pdf_of_floats(self, values: Floats) -> Floats:
        exponents = values[:, None] - self._mu
        exponents /= self._sigma * math.sqrt(2)
        np.square(exponents, out=exponents)
        np.negative(exponents, out=exponents)
        np.maximum(exponents, _UNDERFLOW, out=exponents)
        np.exp(exponents, out=exponents)
        found: Floats = np.log(np.einsum("mn,n->m", exponents, self._weights / (self._sigma * math.sqrt(2 * math.pi))))
        return found

    def _inner(self, values: Floats) -> Floats:
        return np.log(values) if self._kind.log else values

    def _kernels(self, values: Floats) -> tuple[Floats, Floats]:
        """Centres and standard deviations ``(n + 1,)``; the outermost kernels use the distance to their only neighbour."""
        n, wide = len(values), self._high - self._low
        order = np.argsort(values)
        gaps = np.diff(np.concatenate([[self._low], values[order], [self._high]]))
        widths = np.maximum(gaps[:-1], gaps[1:])
        if n >= 2:
            widths[0], widths[-1] = gaps[1], gaps[-2]
        sigma = np.empty(n)
        sigma[order] = np.clip(widths, wide / min(NARROWEST, n + 2), wide)
        return np.append(values, (self._low + self._high) / 2), np.append(sigma, wide)


def _drawn(rng: np.random.Generator, cumulative: Floats, m: int) -> NDArray[np.int64]:
    """(m,) indices drawn with the cumulative probabilities ``cumulative``, whose last element is 1 except for rounding."""
    found: NDArray[np.int64] = np.searchsorted(cumulative, cumulative[-1] * rng.random(m), side="right")
    return found


def _mass(low: Floats, high: Floats) -> Floats:
    """Probability of the standard normal between two numbers, computed in its left tail for precision."""
    from scipy.special import ndtr  # noqa: PLC0415  # slow to import, and needed only here

    right = low > 0
    found: Floats = ndtr(np.where(right, -low, high)) - ndtr(np.where(right, -high, low))
    return found

"""Scaling of numeric columns by statistics that were fitted elsewhere: NumPy only, so that a saved model can carry it.

Shapes: `r` rows, `d` columns, `q` quantiles. Knows nothing of fitting; `fitting` makes these from scikit-learn's scalers.
Reference for the normal quantile: Wichura, "Algorithm AS 241", Applied Statistics 37 (1988).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scaling = Literal["standard", "minmax", "quantile", "log", "none"]

_EDGE = 1e-7
"""Values closer than this to a fitted extreme count as the extreme (as in scikit-learn)."""


@dataclass(frozen=True)
class Scaler:
    """z = (f(x) − shift) / scale, where f is the identity, log(1 + |x|) with the sign of x, or the normal quantile of the
    value's rank among the training rows.
    """

    kind: Scaling
    shift: Floats
    scale: Floats
    quantiles: Floats | None = None
    """(q, d): the training rows' quantiles per column."""

    def apply(self, x: Floats) -> Floats:
        """(r, d) numbers, none missing, as (r, d) scaled ones."""
        if self.kind == "log":
            x = np.sign(x) * np.log1p(np.abs(x))
        elif self.kind == "quantile" and self.quantiles is not None:
            ranks = [_ranks(x[:, index], self.quantiles[:, index]) for index in range(x.shape[1])]
            x = _normal_quantile(np.stack(ranks, axis=1)) if ranks else x
        return (x - self.shift) / self.scale

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        quantiles = None if self.quantiles is None else self.quantiles.tolist()
        return {"kind": self.kind, "shift": self.shift.tolist(), "scale": self.scale.tolist(), "quantiles": quantiles}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scaler:
        """The inverse of `to_json`."""
        quantiles = None if data["quantiles"] is None else np.array(data["quantiles"], dtype=np.float64)
        return cls(data["kind"], np.array(data["shift"], np.float64), np.array(data["scale"], np.float64), quantiles)


def _ranks(x: Floats, quantiles: Floats) -> Floats:
    """Ranks in [0, 1]; of a value that many training rows share, the middle of its ranks."""
    references = np.linspace(0.0, 1.0, len(quantiles))
    upwards = np.interp(x, quantiles, references)
    downwards = np.interp(-x, -quantiles[::-1], -references[::-1])
    ranks = 0.5 * (upwards - downwards)
    ranks[x + _EDGE > quantiles[-1]] = 1.0
    ranks[x - _EDGE < quantiles[0]] = 0.0
    return ranks


# fmt: off
_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)
_MIDDLE = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)
_TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)
# fmt: on


def _normal_quantile(p: Floats) -> Floats:
    """Quantiles of the standard normal distribution, cut at ±5.2, the quantile of 1 − `_EDGE`."""
    p = np.clip(p, _EDGE - np.spacing(1.0), 1.0 - (_EDGE - np.spacing(1.0)))
    q = p - 0.5
    centre = np.abs(q) <= 0.425
    out = np.empty_like(p)
    out[centre] = q[centre] * _ratio(_CENTRE, 0.180625 - q[centre] ** 2)
    tail = np.minimum(p, 1.0 - p)[~centre]
    r = np.sqrt(-np.log(tail))
    far = np.where(r <= 5.0, _ratio(_MIDDLE, r - 1.6), _ratio(_TAIL, r - 5.0))
    out[~centre] = np.copysign(far, q[~centre])
    return out


def _ratio(coefficients: Sequence[Sequence[float]], x: Floats) -> Floats:
    above, below = (np.polynomial.polynomial.polyval(x, np.array(each)) for each in coefficients)
    return np.asarray(above / below, dtype=np.float64)

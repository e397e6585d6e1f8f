"""Scaling of numeric columns by statistics that were fitted elsewhere, as a module of tensor operations.

Shapes: `r` rows, `d` columns, `q` quantiles; all in double precision. A scaling is z = (f(x) − shift) / scale;
`TRANSFORMS` has the f of each word, and for those in `CLIPPED` z / √(1 + (z/3)²) follows, which lies between −3 and 3.
Everything here can be exported to ONNX, which has neither interpolation nor the normal distribution's inverse. Reference for
the latter: Wichura, "Algorithm AS 241", Applied Statistics 37 (1988).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EDGE = 1e-7
"""Values closer than this to a fitted extreme count as the extreme (as in scikit-learn)."""


class Scaling(nn.Module):
    """Shapes: (r, d), none missing, to (r, d) scaled.

    Args:
        fitted: ``kind``; ``shift`` and ``scale`` (d,); ``quantiles`` (q, d) of the training rows, where the kind has any.

    Raises:
        KeyError: There is no such kind.
    """

    shift: Tensor
    scale: Tensor
    quantiles: Tensor

    def __init__(self, fitted: Mapping[str, Any]) -> None:
        super().__init__()
        self._transform = TRANSFORMS[fitted["kind"]]
        self._finish = smoothly_clipped if fitted["kind"] in CLIPPED else torch.nn.Identity()
        quantiles = fitted["quantiles"]
        for name in ("shift", "scale"):
            self.register_buffer(name, torch.tensor(fitted[name], dtype=torch.float64))
        self.register_buffer("quantiles", torch.tensor([] if quantiles is None else quantiles, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """(r, d) to (r, d)."""
        return self._finish((self._transform(x, self.quantiles) - self.shift) / self.scale)


def signed_log(x: Tensor) -> Tensor:
    """sign(x)·ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def normal_quantiles(x: Tensor, quantiles: Tensor) -> Tensor:
    """(r, d) the normal quantile of each value's rank among the training rows' ``quantiles`` (q, d)."""
    return normal_quantile(_ranks(x, quantiles))


TRANSFORMS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda x, quantiles: x,
    "standard": lambda x, quantiles: x,
    "minmax": lambda x, quantiles: x,
    "log": lambda x, quantiles: signed_log(x),
    "quantile": normal_quantiles,
    "robust": lambda x, quantiles: x,
}
CLIPPED = ("robust",)
_LIMIT = 3.0
_LARGEST = 1e150
"""Its square is no infinite number in double precision."""


def smoothly_clipped(z: Tensor) -> Tensor:
    """z / √(1 + (z/3)²): about z near 0, and never beyond ±3 (Holzmüller et al., "Better by default", 2024)."""
    z = z.clamp(-_LARGEST, _LARGEST)
    return z / (1.0 + (z / _LIMIT).square()).sqrt()


def _ranks(x: Tensor, quantiles: Tensor) -> Tensor:
    """Ranks in [0, 1]; of a value that many training rows share, the middle of its ranks."""
    last = len(quantiles) - 1
    # From the last quantile that is no greater to the first that is no smaller; equal ones lie between the two.
    below = (_count(x, quantiles, or_equal=True) - 1).clamp(0, last)
    above = _count(x, quantiles, or_equal=False).clamp(0, last)
    low, high = quantiles.gather(0, below), quantiles.gather(0, above)
    apart = high > low
    share = torch.where(apart, (x - low) / torch.where(apart, high - low, 1.0), 0.5)
    ranks = (below + (above - below) * share) / max(last, 1)
    edge = _double(EDGE)
    ranks = torch.where(x + edge > quantiles[-1], 1.0, ranks)
    return torch.where(x - edge < quantiles[0], 0.0, ranks)


def _count(x: Tensor, quantiles: Tensor, *, or_equal: bool) -> Tensor:
    """(r, d) how many of a column's quantiles are less (or equal), by bisection of all rows and columns at once."""
    steps = len(quantiles).bit_length()
    filled = F.pad(quantiles, (0, 0, 0, 2**steps - 1 - len(quantiles)), value=math.inf)
    count = torch.zeros(x.shape, dtype=torch.int64, device=x.device)
    for step in reversed(range(steps)):
        there = count + 2**step
        probe = filled.gather(0, there - 1)
        count = torch.where((probe <= x) if or_equal else (probe < x), there, count)
    return count


# fmt: off
# Numerator and denominator, constant term first.
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


def normal_quantile(p: Tensor) -> Tensor:
    """Quantiles of the standard normal distribution, cut at ±5.2, the quantile of 1 − `EDGE`; double precision."""
    lowest = EDGE - torch.finfo(torch.float64).eps
    p = p.clamp(_double(lowest), _double(1.0 - lowest))
    q = p - 0.5
    r = (-torch.minimum(p, 1.0 - p).log()).sqrt()
    central, middle, tail = _ratios(torch.stack([_double(0.180625) - q * q, r - _double(1.6), r - 5.0]))
    far = torch.where(r <= 5.0, middle, tail)
    return torch.where(q.abs() <= _double(0.425), q * central, q.sign() * far)


def _ratios(x: Tensor) -> Tensor:
    """(3, ...) to the same: the polynomials of centre, middle and tail, by Horner's rule."""
    coefficients = torch.tensor((_CENTRE, _MIDDLE, _TAIL), dtype=torch.float64, device=x.device).permute(2, 1, 0)
    *rest, out = coefficients.reshape(*coefficients.shape, *(1 for _ in x.shape[1:])).unbind()
    for each in reversed(rest):
        out = out * x + each
    return out[0] / out[1]


def _double(value: float) -> Tensor:
    """A number that keeps its digits: the exporter of ONNX takes those of Python for single precision."""
    return torch.tensor(value, dtype=torch.float64)

"""Scaling to normal quantiles as nodes of ONNX, which has neither interpolation nor the normal distribution's inverse.

A value's place among the training rows' quantiles is found by bisection, all rows and columns at once.
Shapes: `r` rows, `d` columns, `q` quantiles. It does what `workers.data.scaling` does, in double precision as well; a test
holds both against each other. Reference for the normal quantile: Wichura, "Algorithm AS 241", Applied Statistics 37 (1988).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from service.onnx_export.graph import Graph

_EDGE = 1e-7
"""Values closer than this to a fitted extreme count as the extreme (as in scikit-learn)."""


def normal_quantiles(graph: Graph, x: str, quantiles: NDArray[np.float64]) -> str:
    """(r, d) numbers by the training rows' ``quantiles`` (q, d): the normal quantile of each one's rank among them."""
    return _normal(graph, _ranks(graph, x, quantiles))


def _ranks(graph: Graph, x: str, quantiles: NDArray[np.float64]) -> str:
    """Ranks in [0, 1]; of a value that many training rows share, the middle of its ranks."""
    last = len(quantiles) - 1
    # Filled up to one less than a power of two, for the bisection.
    padding = np.full((2 ** len(quantiles).bit_length() - 1 - len(quantiles), quantiles.shape[1]), np.inf)
    table = graph.constant(np.concatenate([quantiles, padding]))
    # From the last quantile that is no greater to the first that is no smaller; equal ones lie between the two.
    below = _clipped(graph, graph.add("Sub", _count(graph, "LessOrEqual", x, table, last + 1), graph.integers(1)), last)
    above = _clipped(graph, _count(graph, "Less", x, table, last + 1), last)
    low, high = (graph.add("GatherElements", table, place, axis=0) for place in (below, above))
    apart = graph.add("Greater", high, low)
    width = graph.add("Where", apart, graph.add("Sub", high, low), graph.constant(1.0))
    share = graph.add("Where", apart, graph.add("Div", graph.add("Sub", x, low), width), graph.constant(0.5))
    first, second = (graph.add("CastLike", place, x) for place in (below, above))
    place = graph.add("Add", first, graph.add("Mul", graph.add("Sub", second, first), share))
    ranks = graph.add("Div", place, graph.constant(max(last, 1)))
    edge = graph.constant(_EDGE)
    highest = graph.add("Greater", graph.add("Add", x, edge), graph.constant(quantiles[-1]))
    lowest = graph.add("Less", graph.add("Sub", x, edge), graph.constant(quantiles[0]))
    ranks = graph.add("Where", highest, graph.constant(1.0), ranks)
    return graph.add("Where", lowest, graph.constant(0.0), ranks)


def _count(graph: Graph, comparison: str, x: str, table: str, quantiles: int) -> str:
    """(r, d) how many of a column's quantiles are less (or equal), by bisection."""
    count = graph.add("ConstantOfShape", graph.add("Shape", x), value=numpy_helper.from_array(np.zeros(1, np.int64)))
    for step in reversed(range(quantiles.bit_length())):
        probe = graph.add("GatherElements", table, graph.add("Add", count, graph.integers(2**step - 1)), axis=0)
        more = graph.add("Add", count, graph.integers(2**step))
        count = graph.add("Where", graph.add(comparison, probe, x), more, count)
    return count


def _clipped(graph: Graph, place: str, last: int) -> str:
    return graph.add("Clip", place, graph.constant(0, np.int64), graph.constant(last, np.int64))


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


def _normal(graph: Graph, p: str) -> str:
    """Quantiles of the standard normal distribution, cut at the quantile of 1 − `_EDGE`."""
    lowest = _EDGE - np.spacing(1.0)
    p = graph.add("Clip", p, graph.constant(lowest), graph.constant(1.0 - lowest))
    q = graph.add("Sub", p, graph.constant(0.5))
    central = _ratio(graph, _CENTRE, graph.add("Sub", graph.constant(0.180625), graph.add("Mul", q, q)))
    tail = graph.add("Min", p, graph.add("Sub", graph.constant(1.0), p))
    r = graph.add("Sqrt", graph.add("Neg", graph.add("Log", tail)))
    middle = _ratio(graph, _MIDDLE, graph.add("Sub", r, graph.constant(1.6)))
    far = _ratio(graph, _TAIL, graph.add("Sub", r, graph.constant(5.0)))
    size = graph.add("Where", graph.add("LessOrEqual", r, graph.constant(5.0)), middle, far)
    near = graph.add("LessOrEqual", graph.add("Abs", q), graph.constant(0.425))
    return graph.add("Where", near, graph.add("Mul", q, central), graph.add("Mul", graph.add("Sign", q), size))


def _ratio(graph: Graph, coefficients: Sequence[Sequence[float]], x: str) -> str:
    return graph.add("Div", *(_polynomial(graph, each, x) for each in coefficients))


def _polynomial(graph: Graph, coefficients: Sequence[float], x: str) -> str:
    """By Horner's rule, constant term first."""
    *rest, out = (graph.constant(each) for each in coefficients)
    for each in reversed(rest):
        out = graph.add("Add", graph.add("Mul", out, x), each)
    return out

"""Models of series as nodes of ONNX, from the weights of `workers.models.sequence`.

Shapes: `r` series, `t` steps, `c` channels, `d` units, `o` outputs. Padding lies behind a series, and is masked where steps
meet: in attention and in pooling. The recurrent layers may run over it, as no state depends on what follows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from service.onnx_export.graph import ACTIVATIONS, EPSILON, Arrays, Graph, group_norm, layer_norm, linear
from service.onnx_export.preprocessing import real_steps

_LONGEST_WAVE = 10000.0
_LOWEST = float(np.finfo(np.float32).min)


def sequence(graph: Graph, x: str, shape: Mapping[str, Any], weights: Arrays) -> str:
    """(r, t, c) to (r, o)."""
    real = real_steps(graph, x)
    transformer = shape["cell"] == "transformer"
    if transformer:
        x = _with_positions(graph, _each_step(graph, x, weights, "embed"), shape["widths"][0])
    for place, width in enumerate(shape["widths"]):
        name = f"layers.{place}"
        if transformer:
            x = _attention_layer(graph, x, real, shape, weights, name)
        else:
            states = _recurrent(graph, x, weights, f"{name}.gru", width)
            x = _normalized(graph, states, shape, weights, f"{name}.norm")
    return linear(graph, _pooled(graph, x, real, shape["pooling"]), weights, "head")


def _each_step(graph: Graph, x: str, weights: Arrays, name: str) -> str:
    """A linear layer at every step: (..., in) to (..., out)."""
    product = graph.add("MatMul", x, graph.single(weights[f"{name}.weight"].T))
    return graph.add("Add", product, graph.single(weights[f"{name}.bias"]))


def _recurrent(graph: Graph, x: str, weights: Arrays, name: str, width: int) -> str:
    """Gated recurrent units, (r, t, in) to the states (r, t, width)."""
    of_input, of_state = (_gates(weights[f"{name}.weight_{own}_l0"])[None] for own in ("ih", "hh"))
    biases = np.concatenate([_gates(weights[f"{name}.bias_{own}_l0"]) for own in ("ih", "hh")])[None]
    steps = graph.add("Transpose", x, perm=[1, 0, 2])
    parts = (graph.single(each) for each in (of_input, of_state, biases))
    states = graph.add("GRU", steps, *parts, hidden_size=width, linear_before_reset=1)
    return graph.add("Transpose", graph.add("Squeeze", states, graph.integers(1)), perm=[1, 0, 2])


def _gates(of_torch: NDArray[Any]) -> NDArray[Any]:
    """Reset, update, new, as torch has them, in the order of ONNX: update, reset, new."""
    reset, update, new = np.split(of_torch, 3)
    return np.concatenate([update, reset, new])


def _with_positions(graph: Graph, x: str, width: int) -> str:
    """(r, t, width) with sines and cosines of the step added (Vaswani et al. 2017, section 3.5)."""
    waves = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(_LONGEST_WAVE)) / np.float32(width))
    zero, one = (graph.constant(value, np.int64) for value in (0, 1))
    steps = graph.add("Cast", graph.add("Range", zero, graph.size(x, 1), one), to_type=TensorProto.FLOAT)
    angle = graph.add("Mul", graph.add("Unsqueeze", steps, graph.integers(1)), graph.single(waves))
    pairs = [graph.add("Unsqueeze", graph.add(wave, angle), graph.integers(2)) for wave in ("Sin", "Cos")]
    flat = graph.add("Reshape", graph.add("Concat", *pairs, axis=2), graph.integers(0, 2 * len(waves)))
    return graph.add("Add", x, graph.add("Slice", flat, graph.integers(0), graph.integers(width), graph.integers(1)))


def _attention_layer(graph: Graph, x: str, real: str, shape: Mapping[str, Any], weights: Arrays, name: str) -> str:
    """Self-attention and a perceptron, each around a shortcut with normalization in front: (r, t, in) to (r, t, d)."""
    if f"{name}.project.weight" in weights:
        x = _each_step(graph, x, weights, f"{name}.project")
    attended = _attended(graph, _normalized(graph, x, shape, weights, f"{name}.norm1"), real, shape, weights, name)
    x = graph.add("Add", x, _each_step(graph, attended, weights, f"{name}.merge"))
    wide = _each_step(graph, _normalized(graph, x, shape, weights, f"{name}.norm2"), weights, f"{name}.widen")
    return graph.add("Add", x, _each_step(graph, ACTIVATIONS[shape["activation"]](graph, wide), weights, f"{name}.narrow"))


def _attended(graph: Graph, x: str, real: str, shape: Mapping[str, Any], weights: Arrays, name: str) -> str:
    """Scaled dot-product attention to all real steps, (r, t, d) to the same."""
    width = len(weights[f"{name}.merge.bias"])
    heads = math.gcd(shape["heads"], width)
    mixed = _each_step(graph, x, weights, f"{name}.query_key_value")
    apart = graph.add("Reshape", mixed, graph.integers(0, 0, 3, heads, width // heads))
    parts = graph.add("Transpose", apart, perm=[2, 0, 3, 1, 4])
    query, key, value = (graph.add("Gather", parts, graph.constant(place, np.int64), axis=0) for place in range(3))
    product = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    scores = graph.add("Div", product, graph.single(math.sqrt(width // heads)))
    seen = graph.add("Unsqueeze", real, graph.integers(1, 2))
    shares = graph.add("Softmax", graph.add("Where", seen, scores, graph.single(_LOWEST)), axis=-1)
    together = graph.add("Transpose", graph.add("MatMul", shares, value), perm=[0, 2, 1, 3])
    return graph.add("Reshape", together, graph.integers(0, 0, width))


def _normalized(graph: Graph, x: str, shape: Mapping[str, Any], weights: Arrays, name: str) -> str:
    """The units of every step, (r, t, d) to the same."""
    kind = shape["normalization"]
    if kind == "batch":
        parts = (weights[f"{name}.batch.{own}"] for own in ("weight", "bias", "running_mean", "running_var"))
        gain, bias, mean, variance = (part.astype(np.float64) for part in parts)
        factor = gain / np.sqrt(variance + EPSILON)
        return graph.add("Add", graph.add("Mul", x, graph.single(factor)), graph.single(bias - mean * factor))
    if kind == "layer":
        return layer_norm(graph, x, weights, f"{name}.own")
    if kind == "group":
        gain, bias = weights[f"{name}.own.weight"], weights[f"{name}.own.bias"]
        groups = math.gcd(shape["groups"], len(gain))
        return group_norm(graph, x, (-1, groups, len(gain) // groups), gain, bias)
    return x


def _pooled(graph: Graph, x: str, real: str, how: str) -> str:
    """(r, t, d) to (r, d): the mean or the maximum over the real steps, or the last of them; 0 without a step."""
    counted = graph.add("CastLike", graph.add("Unsqueeze", real, graph.integers(2)), x)
    steps = graph.add("ReduceSum", counted, graph.integers(1), keepdims=0)
    if how == "mean":
        total = graph.add("ReduceSum", graph.add("Mul", x, counted), graph.integers(1), keepdims=0)
        return graph.add("Div", total, graph.add("Max", steps, graph.single(1.0)))
    if how == "max":
        masked = graph.add("Where", graph.add("Unsqueeze", real, graph.integers(2)), x, graph.single(_LOWEST))
        highest = graph.add("ReduceMax", masked, graph.integers(1), keepdims=0)
        return graph.add("Where", graph.add("Greater", steps, graph.single(0.0)), highest, graph.single(0.0))
    # 1 at the last real step only: a step is last if as many are real as lie up to it.
    up_to = graph.add("CumSum", counted, graph.constant(1, np.int64))
    is_last = graph.add("Equal", up_to, graph.add("Unsqueeze", steps, graph.integers(1)))
    last = graph.add("Mul", counted, graph.add("CastLike", is_last, x))
    return graph.add("ReduceSum", graph.add("Mul", x, last), graph.integers(1), keepdims=0)

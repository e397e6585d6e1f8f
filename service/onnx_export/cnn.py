"""The residual network for images as nodes of ONNX, from the weights of `workers.models.cnn`.

Shapes: `r` images, `c` channels, `h`, `w` pixels, `o` outputs. Weight normalization is folded into the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.onnx_export.graph import ACTIVATIONS, EPSILON, Arrays, Graph, batch_norm, group_norm, linear

_NEIGHBOURS, _ALPHA, _BETA, _BIAS = 5, 1e-4, 0.75, 1.0
"""Of local response normalization: the channels that `workers.models.cnn` looks at, and torch's defaults."""


def cnn(graph: Graph, x: str, shape: Mapping[str, Any], weights: Arrays) -> str:
    """(r, c, h, w) to (r, o)."""
    act = ACTIVATIONS[shape["activation"]]
    x = act(graph, _normalized(graph, _convolved(graph, x, weights, "stem.0"), shape, weights, "stem.1"))
    for stage in range(len(shape["widths"])):
        for index in range(shape["blocks"]):
            halve = shape["downsampling"] if stage and not index else ""
            x = _block(graph, x, shape, weights, f"stages.{stage}.{index}", halve)
    pooled = graph.add("GlobalMaxPool" if shape["pooling"] == "max" else "GlobalAveragePool", x)
    return linear(graph, graph.add("Flatten", pooled), weights, "head")


def _block(graph: Graph, x: str, shape: Mapping[str, Any], weights: Arrays, name: str, halve: str) -> str:
    """Two convolutions and the way around them; ``halve`` says how the resolution is halved, if it is."""
    act, stride = ACTIVATIONS[shape["activation"]], 2 if halve == "strided" else 1
    if halve == "max":
        x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    elif halve == "average":
        x = graph.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=0)
    out = _convolved(graph, x, weights, f"{name}.conv1", stride)
    out = act(graph, _normalized(graph, out, shape, weights, f"{name}.norm1"))
    out = _normalized(graph, _convolved(graph, out, weights, f"{name}.conv2"), shape, weights, f"{name}.norm2")
    if shape["shortcuts"]:
        changed = any(key.startswith(f"{name}.shortcut.") for key in weights)
        out = graph.add("Add", out, _convolved(graph, x, weights, f"{name}.shortcut", stride) if changed else x)
    return act(graph, out)


def _convolved(graph: Graph, x: str, weights: Arrays, name: str, stride: int = 1) -> str:
    weight = _weight(weights, name)
    bias = [graph.single(weights[f"{name}.bias"])] if f"{name}.bias" in weights else []
    size = weight.shape[-1]
    return graph.add("Conv", x, graph.single(weight), *bias, pads=[size // 2] * 4, strides=[stride] * 2)


def _weight(weights: Arrays, name: str) -> NDArray[Any]:
    """(after, before, size, size), w = g · v / ‖v‖ under weight normalization."""
    if f"{name}.weight" in weights:
        return weights[f"{name}.weight"]
    direction = weights[f"{name}.weight_v"].astype(np.float64)
    norms = np.sqrt(np.square(direction).sum((1, 2, 3), keepdims=True))
    return np.asarray(direction * (weights[f"{name}.weight_g"] / norms))


def _normalized(graph: Graph, x: str, shape: Mapping[str, Any], weights: Arrays, name: str) -> str:
    kind = shape["normalization"]
    if kind in ("none", "weight"):
        return x
    if kind == "local_response":
        return graph.add("LRN", x, size=_NEIGHBOURS, alpha=_ALPHA, beta=_BETA, bias=_BIAS)
    if kind == "batch":
        return batch_norm(graph, x, weights, name)
    gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if kind == "instance":
        return graph.add("InstanceNormalization", x, graph.single(gain), graph.single(bias), epsilon=EPSILON)
    groups = 1 if kind == "layer" else math.gcd(shape["groups"], len(gain))
    return group_norm(graph, x, (0, groups, -1), gain[:, None, None], bias[:, None, None])

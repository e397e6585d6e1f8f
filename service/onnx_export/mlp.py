"""A perceptron as nodes of ONNX, from the layers that the archive names. Shapes: `r` rows, `d` features, `o` outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.onnx_export.graph import ACTIVATIONS, Arrays, Graph, batch_norm, group_norm, layer_norm, linear


def mlp(graph: Graph, x: str, shape: Mapping[str, Any], weights: Arrays) -> str:
    """(r, d) to (r, o)."""
    inputs = shape["inputs"]
    if shape.get("embeddings"):  # which older archives don't mention
        matrix = _embedding(
            inputs, [weights[f"embeddings.tables.{place}.weight"] for place in range(len(shape["embeddings"]))]
        )
        x, inputs = graph.add("MatMul", x, graph.single(matrix)), matrix.shape[1]
    for place, (before, width) in enumerate(pairwise([inputs, *shape["widths"]]), start=1):
        out = linear(graph, x, weights, f"linear{place}")
        if shape["norm_after"]:
            out = _normalized(graph, ACTIVATIONS[shape["activation"]](graph, out), shape, weights, place)
        else:
            out = ACTIVATIONS[shape["activation"]](graph, _normalized(graph, out, shape, weights, place))
        x = graph.add("Add", x, out) if shape["shortcuts"] and before == width else out
    return linear(graph, x, weights, "head")


def _embedding(inputs: int, tables: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(inputs, units) what embeds all categories at once: numbers stay, each one-hot block meets its own table."""
    blocks = [np.eye(inputs - sum(len(table) for table in tables)), *tables]
    starts = np.cumsum([(0, 0), *(block.shape for block in blocks)], axis=0)
    matrix = np.zeros(starts[-1])
    for (row, column), block in zip(starts, blocks, strict=False):
        matrix[row : row + block.shape[0], column : column + block.shape[1]] = block
    return matrix


def _normalized(graph: Graph, x: str, shape: Mapping[str, Any], weights: Arrays, place: int) -> str:
    name = f"norm{place}"
    match shape["normalization"]:
        case "batch":
            return batch_norm(graph, x, weights, name)
        case "layer":
            return layer_norm(graph, x, weights, name)
        case "group":
            gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            return group_norm(graph, x, (0, math.gcd(shape["groups"], len(gain)), -1), gain, bias)
        case _:
            return x

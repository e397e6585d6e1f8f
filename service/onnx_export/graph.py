"""A graph of ONNX while it grows, and the layers that several families of networks have.

Weights come by the names that the archive gives them, as `Arrays`. Knows nothing of archives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Arrays = Mapping[str, NDArray[Any]]

EPSILON = 1e-5
"""As torch has it in all of its normalizations."""


class Graph:
    """Nodes and constants as they are added; values are named by number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, kind: Any = np.float64) -> str:
        """A constant's name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype=kind, order="C"), name))
        return name

    def single(self, value: Any) -> str:
        """The name of a constant in single precision, as weights are."""
        return self.constant(value, np.float32)

    def integers(self, *values: int) -> str:
        """The name of a constant (n,) of integers: axes, or a shape."""
        return self.constant(values, np.int64)

    def add(self, kind: str, *inputs: str, to: str | None = None, domain: str = "", **attributes: Any) -> str:
        """A node's output, named ``to``; the attribute that ONNX calls `to` is ``to_type`` here."""
        name = to or f"v{len(self.nodes)}"
        if "to_type" in attributes:
            attributes["to"] = attributes.pop("to_type")
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def size(self, x: str, axis: int) -> str:
        """The length of an axis, a scalar."""
        return self.add("Gather", self.add("Shape", x), self.constant(axis, np.int64))


ACTIVATIONS: Mapping[str, Callable[[Graph, str], str]] = {
    "relu": lambda graph, x: graph.add("Relu", x),
    "gelu": lambda graph, x: graph.add("Gelu", x),
    "silu": lambda graph, x: graph.add("Mul", x, graph.add("Sigmoid", x)),
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "elu": lambda graph, x: graph.add("Elu", x),
}


def linear(graph: Graph, x: str, weights: Arrays, name: str) -> str:
    """(r, in) to (r, out)."""
    inputs = [graph.single(weights[f"{name}.{own}"]) for own in ("weight", "bias") if f"{name}.{own}" in weights]
    return graph.add("Gemm", x, *inputs, transB=1)


def batch_norm(graph: Graph, x: str, weights: Arrays, name: str) -> str:
    """(r, d, ...) by the running statistics of its d units or channels."""
    parts = (graph.single(weights[f"{name}.{own}"]) for own in ("weight", "bias", "running_mean", "running_var"))
    return graph.add("BatchNormalization", x, *parts, epsilon=EPSILON)


def layer_norm(graph: Graph, x: str, weights: Arrays, name: str) -> str:
    """(..., d) over its last axis."""
    parts = (graph.single(weights[f"{name}.{own}"]) for own in ("weight", "bias"))
    return graph.add("LayerNormalization", x, *parts, axis=-1, epsilon=EPSILON)


def group_norm(graph: Graph, x: str, apart: tuple[int, int, int], gain: NDArray[Any], bias: NDArray[Any]) -> str:
    """Each group by itself, then gain and bias, which broadcast to ``x``.

    ``apart`` is the shape (n, groups, members) in which the members of a group are the last axis (0 and −1 as in Reshape).
    """
    ones, zeros = (graph.single(np.full(apart[1], value)) for value in (1.0, 0.0))
    groups = graph.add("Reshape", x, graph.integers(*apart))
    normal = graph.add("InstanceNormalization", groups, ones, zeros, epsilon=EPSILON)
    together = graph.add("Reshape", normal, graph.add("Shape", x))
    return graph.add("Add", graph.add("Mul", together, graph.single(gain)), graph.single(bias))

"""From a model's archive to ONNX, preprocessing included; needs `onnx` and `safetensors`, no torch.

Inputs: `numbers` (r, n) float64, NaN where missing, and `categories` (r, m) strings, "" where missing, whichever of the two
the model has; their columns, in order, are in the model's metadata. Outputs: `label` (r,) and `probabilities` (r, c), or
`prediction` (r,) float64 in the target's own unit. Preprocessing runs in double precision, as it does in training.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load

from service.errors import Conflict

_OPSET, _ML_OPSET = 21, 3
_IR_VERSION = 10
_LARGEST = float(np.finfo(np.float32).max)

Arrays = Mapping[str, NDArray[Any]]


def to_onnx(archive: bytes) -> bytes:
    """The ONNX model of an archive.

    Raises:
        Conflict: It has a part that is not exported: its family of networks, or scaling by quantiles.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        about, fitted = (json.loads(files.read(name)) for name in ("recipe.json", "preprocessing.json"))
        weights = load(files.read("weights.safetensors"))
    if about["model"]["family"] not in _FAMILIES:
        raise Conflict(f"networks of the family {about['model']['family']!r} can't be exported to ONNX")
    if fitted["numbers"]["scaler"]["kind"] == "quantile":
        raise Conflict("scaling by quantiles can't be exported to ONNX")
    graph = _Graph()
    x = _preprocessed(graph, fitted)
    out = _FAMILIES[about["model"]["family"]](graph, x, about["model"], weights)
    outputs = _classified(graph, out, about) if about["task"] == "classification" else _restored(graph, out, about)
    made = helper.make_graph(graph.nodes, "regsearch", _inputs(fitted), outputs, graph.constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(made, opset_imports=opsets, producer_name="regsearch", ir_version=_IR_VERSION)
    columns = {f"{name}.columns": json.dumps(fitted[key]["columns"]) for name, key in _INPUTS.items()}
    helper.set_model_props(model, {**columns, "classes": json.dumps(about["classes"]), "study": json.dumps(about["study"])})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Graph:
    """Nodes and constants as they are added; values are named by number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, kind: Any = np.float64) -> str:
        """A constant's name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(np.array(value, dtype=kind)), name))
        return name

    def add(self, kind: str, *inputs: str, to: str | None = None, domain: str = "", **attributes: Any) -> str:
        """A node's output, named ``to``; the attribute that ONNX calls `to` is ``to_type`` here."""
        name = to or f"v{len(self.nodes)}"
        if "to_type" in attributes:
            attributes["to"] = attributes.pop("to_type")
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name


_INPUTS = {"numbers": "numbers", "categories": "words"}


def _inputs(fitted: Mapping[str, Any]) -> list[onnx.ValueInfoProto]:
    kinds = {"numbers": TensorProto.DOUBLE, "categories": TensorProto.STRING}
    return [
        helper.make_tensor_value_info(name, kinds[name], ["rows", len(fitted[key]["columns"])])
        for name, key in _INPUTS.items()
        if fitted[key]["columns"]
    ]


def _preprocessed(graph: _Graph, fitted: Mapping[str, Any]) -> str:
    """(r, d) float32 features."""
    parts = []
    if fitted["numbers"]["columns"]:
        parts += _numbers(graph, fitted["numbers"])
    if fitted["words"]["columns"]:
        parts += _words(graph, fitted["words"])
    clipped = graph.add("Clip", graph.add("Concat", *parts, axis=1), graph.constant(-_LARGEST), graph.constant(_LARGEST))
    return graph.add("Cast", clipped, to_type=TensorProto.FLOAT)


def _numbers(graph: _Graph, fitted: Mapping[str, Any]) -> list[str]:
    """Scaled numbers, and flags of the missing ones. What is too large for a float32 counts as missing."""
    unknown = graph.add("IsNaN", "numbers")
    too_large = graph.add("Greater", graph.add("Abs", "numbers"), graph.constant(_LARGEST))
    missing = graph.add("Or", unknown, too_large)
    x = graph.add("Where", missing, graph.constant(fitted["fill"]), "numbers")
    scaler = fitted["scaler"]
    if scaler["kind"] == "log":
        size = graph.add("Log", graph.add("Add", graph.add("Abs", x), graph.constant(1.0)))
        x = graph.add("Mul", graph.add("Sign", x), size)
    parts = [graph.add("Div", graph.add("Sub", x, graph.constant(scaler["shift"])), graph.constant(scaler["scale"]))]
    if fitted["flagged"]:
        flags = graph.add("Gather", missing, graph.constant(fitted["flagged"], np.int64), axis=1)
        parts.append(graph.add("Cast", flags, to_type=TensorProto.DOUBLE))
    return parts


def _words(graph: _Graph, fitted: Mapping[str, Any]) -> list[str]:
    """Zeros and ones per category, or its code. The empty text counts as what filled the gaps in training."""
    parts = []
    for place, (fill, levels, shared) in enumerate(zip(fitted["fill"], fitted["levels"], fitted["shared"], strict=True)):
        unseen = 0 if fitted["ordinal"] else shared
        known = {"": levels.get(fill, unseen), **levels}
        column = graph.add("Gather", "categories", graph.constant([place], np.int64), axis=1)
        code = graph.add(
            "LabelEncoder",
            column,
            domain="ai.onnx.ml",
            keys_strings=list(known),
            values_int64s=list(known.values()),
            default_int64=unseen,
        )
        if not fitted["ordinal"]:
            size = fitted["sizes"][place] if "sizes" in fitted else max(levels.values(), default=-1) + 1  # older archives
            codes = graph.constant(np.arange(size)[None], np.int64)
            code = graph.add("Equal", code, codes)
        parts.append(graph.add("Cast", code, to_type=TensorProto.DOUBLE))
    return parts


def _mlp(graph: _Graph, x: str, shape: Mapping[str, Any], weights: Arrays) -> str:
    """(r, o) outputs, by the names that the archive gives to layers."""
    inputs = shape["inputs"]
    if shape.get("embeddings"):  # which older archives don't mention
        matrix = _embedding(
            inputs, [weights[f"embeddings.tables.{place}.weight"] for place in range(len(shape["embeddings"]))]
        )
        x, inputs = graph.add("MatMul", x, graph.constant(matrix, np.float32)), matrix.shape[1]
    for place, (before, width) in enumerate(pairwise([inputs, *shape["widths"]]), start=1):
        parts = {name: weights.get(f"norm{place}.{name}") for name in _NORM_PARTS}
        out = _linear(graph, x, weights, f"linear{place}")
        if shape["norm_after"]:
            out = _normalized(graph, _ACTIVATIONS[shape["activation"]](graph, out), shape, parts, width)
        else:
            out = _ACTIVATIONS[shape["activation"]](graph, _normalized(graph, out, shape, parts, width))
        x = graph.add("Add", x, out) if shape["shortcuts"] and before == width else out
    return _linear(graph, x, weights, "head")


def _embedding(inputs: int, tables: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(inputs, units) what embeds all categories at once: numbers stay, each one-hot block meets its own table."""
    blocks = [np.eye(inputs - sum(len(table) for table in tables)), *tables]
    starts = np.cumsum([(0, 0), *(block.shape for block in blocks)], axis=0)
    matrix = np.zeros(starts[-1])
    for (row, column), block in zip(starts, blocks, strict=False):
        matrix[row : row + block.shape[0], column : column + block.shape[1]] = block
    return matrix


def _linear(graph: _Graph, x: str, weights: Arrays, name: str) -> str:
    inputs = [graph.constant(weights[f"{name}.weight"], np.float32)]
    if f"{name}.bias" in weights:
        inputs.append(graph.constant(weights[f"{name}.bias"], np.float32))
    return graph.add("Gemm", x, *inputs, transB=1)


_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_EPSILON = 1e-5
"""As torch has it in all of its normalizations."""


def _normalized(graph: _Graph, x: str, shape: Mapping[str, Any], parts: Mapping[str, Any], width: int) -> str:
    kind = shape["normalization"]
    if kind in ("none", "weight"):
        return x
    gain, bias = (graph.constant(parts[name], np.float32) for name in ("weight", "bias"))
    if kind == "batch":
        statistics = (graph.constant(parts[name], np.float32) for name in ("running_mean", "running_var"))
        return graph.add("BatchNormalization", x, gain, bias, *statistics, epsilon=_EPSILON)
    if kind == "layer":
        return graph.add("LayerNormalization", x, gain, bias, axis=-1, epsilon=_EPSILON)
    groups = math.gcd(shape["groups"], width)
    ones, zeros = (graph.constant(np.full(groups, value), np.float32) for value in (1.0, 0.0))
    apart = graph.add("Reshape", x, graph.constant([0, groups, -1], np.int64))
    normal = graph.add("InstanceNormalization", apart, ones, zeros, epsilon=_EPSILON)
    together = graph.add("Reshape", normal, graph.constant([0, -1], np.int64))
    return graph.add("Add", graph.add("Mul", together, gain), bias)


_ACTIVATIONS: Mapping[str, Callable[[_Graph, str], str]] = {
    "relu": lambda graph, x: graph.add("Relu", x),
    "gelu": lambda graph, x: graph.add("Gelu", x),
    "silu": lambda graph, x: graph.add("Mul", x, graph.add("Sigmoid", x)),
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "elu": lambda graph, x: graph.add("Elu", x),
}

_FAMILIES: Mapping[str, Callable[[_Graph, str, Mapping[str, Any], Arrays], str]] = {"mlp": _mlp}


def _classified(graph: _Graph, out: str, about: Mapping[str, Any]) -> Sequence[onnx.ValueInfoProto]:
    graph.add("Softmax", out, to="probabilities", axis=-1)
    best = graph.add("ArgMax", out, axis=-1, keepdims=0)
    places = list(range(len(about["classes"])))
    attributes = {"keys_int64s": places, "values_strings": about["classes"]}
    graph.add("LabelEncoder", best, to="label", domain="ai.onnx.ml", **attributes)
    return [
        helper.make_tensor_value_info("label", TensorProto.STRING, ["rows"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", len(places)]),
    ]


def _restored(graph: _Graph, out: str, about: Mapping[str, Any]) -> Sequence[onnx.ValueInfoProto]:
    scale = about["target_scale"]
    flat = graph.add("Cast", graph.add("Reshape", out, graph.constant([-1], np.int64)), to_type=TensorProto.DOUBLE)
    product = graph.add("Mul", flat, graph.constant(scale["scale"]))
    graph.add("Add", product, graph.constant(scale["mean"]), to="prediction")
    return [helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["rows"])]

"""Preprocessing as nodes of ONNX, in the precision of training: tables in doubles, images and series in singles.

Shapes: `r` rows, `n` numeric and `m` categorical columns, `d` features; `h`, `w` pixels, `c` channels, `t` steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.onnx_export.graph import Graph
from service.onnx_export.quantiles import normal_quantiles

_LARGEST = float(np.finfo(np.float32).max)
_COLUMNS = {"numbers": "numbers", "categories": "words"}


def inputs(fitted: Mapping[str, Any]) -> list[onnx.ValueInfoProto]:
    """What the model takes: `numbers` and `categories` of a table, `images`, or `series` and their `lengths`."""
    if fitted["kind"] == "array":
        channels = len(fitted["mean"])
        if fitted["layout"] == "image":
            return [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", "height", "width", channels])]
        return [
            helper.make_tensor_value_info("series", TensorProto.FLOAT, ["rows", "steps", channels]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["rows"]),
        ]
    kinds = {"numbers": TensorProto.DOUBLE, "categories": TensorProto.STRING}
    return [
        helper.make_tensor_value_info(name, kinds[name], ["rows", len(fitted[key]["columns"])])
        for name, key in _COLUMNS.items()
        if fitted[key]["columns"]
    ]


def columns(fitted: Mapping[str, Any]) -> dict[str, str]:
    """The names of a table's columns in order, as JSON, for the model's metadata."""
    if fitted["kind"] == "array":
        return {}
    return {f"{name}.columns": json.dumps(fitted[key]["columns"]) for name, key in _COLUMNS.items()}


def preprocessed(graph: Graph, fitted: Mapping[str, Any]) -> str:
    """(r, d), (r, c, h, w) or (r, t, c) float32 features; padding of series is 0."""
    if fitted["kind"] == "table":
        return _table(graph, fitted)
    if fitted["layout"] == "image":
        return graph.add("Transpose", _standardized(graph, "images", fitted), perm=[0, 3, 1, 2])
    real = graph.add("Unsqueeze", real_steps(graph, "series"), graph.integers(2))
    return graph.add("Where", real, _standardized(graph, "series", fitted), graph.single(0.0))


def real_steps(graph: Graph, x: str) -> str:
    """(r, t) whether a step of series ``x`` (r, t, ...) lies within the length of its series."""
    zero, one = (graph.constant(value, np.int64) for value in (0, 1))
    steps = graph.add("Range", zero, graph.size(x, 1), one)
    return graph.add("Less", steps, graph.add("Unsqueeze", "lengths", graph.integers(1)))


def _standardized(graph: Graph, x: str, fitted: Mapping[str, Any]) -> str:
    """Channels, which are the last axis, by their mean and deviation; what is missing or infinite becomes the mean."""
    mean, scale = (graph.single(fitted[name]) for name in ("mean", "scale"))
    out = graph.add("Div", graph.add("Sub", x, mean), scale)
    unknown = graph.add("Or", graph.add("IsNaN", out), graph.add("IsInf", out))
    return graph.add("Where", unknown, graph.single(0.0), out)


def _table(graph: Graph, fitted: Mapping[str, Any]) -> str:
    parts = []
    if fitted["numbers"]["columns"]:
        parts += _numbers(graph, fitted["numbers"])
    if fitted["words"]["columns"]:
        parts += _words(graph, fitted["words"])
    clipped = graph.add("Clip", graph.add("Concat", *parts, axis=1), graph.constant(-_LARGEST), graph.constant(_LARGEST))
    return graph.add("Cast", clipped, to_type=TensorProto.FLOAT)


def _numbers(graph: Graph, fitted: Mapping[str, Any]) -> list[str]:
    """Scaled numbers, and flags of the missing ones. What is too large for a float32 counts as missing."""
    unknown = graph.add("IsNaN", "numbers")
    too_large = graph.add("Greater", graph.add("Abs", "numbers"), graph.constant(_LARGEST))
    missing = graph.add("Or", unknown, too_large)
    x = graph.add("Where", missing, graph.constant(fitted["fill"]), "numbers")
    scaler = fitted["scaler"]
    if scaler["kind"] == "log":
        size = graph.add("Log", graph.add("Add", graph.add("Abs", x), graph.constant(1.0)))
        x = graph.add("Mul", graph.add("Sign", x), size)
    elif scaler["kind"] == "quantile":
        x = normal_quantiles(graph, x, np.array(scaler["quantiles"], dtype=np.float64))
    parts = [graph.add("Div", graph.add("Sub", x, graph.constant(scaler["shift"])), graph.constant(scaler["scale"]))]
    if fitted["flagged"]:
        flags = graph.add("Gather", missing, graph.integers(*fitted["flagged"]), axis=1)
        parts.append(graph.add("Cast", flags, to_type=TensorProto.DOUBLE))
    return parts


def _words(graph: Graph, fitted: Mapping[str, Any]) -> list[str]:
    """Zeros and ones per category, or its code. The empty text counts as what filled the gaps in training."""
    parts = []
    for place, (fill, levels, shared) in enumerate(zip(fitted["fill"], fitted["levels"], fitted["shared"], strict=True)):
        unseen = 0 if fitted["ordinal"] else shared
        known = {"": levels.get(fill, unseen), **levels}
        column = graph.add("Gather", "categories", graph.integers(place), axis=1)
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

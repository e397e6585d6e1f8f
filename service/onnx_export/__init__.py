"""From a model's archive to ONNX, preprocessing included; needs `onnx` and `safetensors`, no torch.

Inputs, whichever the model has: `numbers` (r, n) float64, NaN where missing, and `categories` (r, m) strings, "" where
missing, whose columns, in order, are in the model's metadata; `images` (r, h, w, c) float32; `series` (r, t, c) float32
with `lengths` (r,) int64, behind which steps are padding. Outputs: `label` (r,) and `probabilities` (r, c), or
`prediction` (r,) float64 in the target's own unit.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load

from service.errors import Conflict
from service.onnx_export.cnn import cnn
from service.onnx_export.graph import Arrays, Graph
from service.onnx_export.mlp import mlp
from service.onnx_export.preprocessing import columns, inputs, preprocessed
from service.onnx_export.sequence import sequence

__all__ = ["to_onnx"]

_OPSET, _ML_OPSET = 21, 3
_IR_VERSION = 10

_FAMILIES: Mapping[str, Callable[[Graph, str, Mapping[str, Any], Arrays], str]] = {
    "mlp": mlp,
    "cnn": cnn,
    "sequence": sequence,
}


def to_onnx(archive: bytes) -> bytes:
    """The ONNX model of an archive.

    Raises:
        Conflict: Its network is of a family that is not exported.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        about, fitted = (json.loads(files.read(name)) for name in ("recipe.json", "preprocessing.json"))
        weights = load(files.read("weights.safetensors"))
    if about["model"]["family"] not in _FAMILIES:
        raise Conflict(f"networks of the family {about['model']['family']!r} can't be exported to ONNX")
    graph = Graph()
    out = _FAMILIES[about["model"]["family"]](graph, preprocessed(graph, fitted), about["model"], weights)
    outputs = _classified(graph, out, about) if about["task"] == "classification" else _restored(graph, out, about)
    made = helper.make_graph(graph.nodes, "regsearch", inputs(fitted), outputs, graph.constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(made, opset_imports=opsets, producer_name="regsearch", ir_version=_IR_VERSION)
    said = {"classes": json.dumps(about["classes"]), "study": json.dumps(about["study"])}
    helper.set_model_props(model, {**columns(fitted), **said})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _classified(graph: Graph, out: str, about: Mapping[str, Any]) -> Sequence[onnx.ValueInfoProto]:
    graph.add("Softmax", out, to="probabilities", axis=-1)
    best = graph.add("ArgMax", out, axis=-1, keepdims=0)
    places = list(range(len(about["classes"])))
    attributes = {"keys_int64s": places, "values_strings": about["classes"]}
    graph.add("LabelEncoder", best, to="label", domain="ai.onnx.ml", **attributes)
    return [
        helper.make_tensor_value_info("label", TensorProto.STRING, ["rows"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", len(places)]),
    ]


def _restored(graph: Graph, out: str, about: Mapping[str, Any]) -> Sequence[onnx.ValueInfoProto]:
    scale = about["target_scale"]
    flat = graph.add("Cast", graph.add("Reshape", out, graph.integers(-1)), to_type=TensorProto.DOUBLE)
    product = graph.add("Mul", flat, graph.constant(scale["scale"]))
    graph.add("Add", product, graph.constant(scale["mean"]), to="prediction")
    return [helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["rows"])]

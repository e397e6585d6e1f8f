"""From a model's archive to one ONNX model, preprocessing included, by torch's own exporter; needs `onnx` and `onnxscript`.

Inputs, whichever the model has: `numbers` (r, n) float64, NaN where missing, and `categories` (r, m) strings, "" where
missing, whose columns, in order, are in the model's metadata; `images` (r, h, w, c) float32; `series` (r, t, c) float32
with `lengths` (r,) int64, from which on steps are padding. Outputs: `label` (r,) and `probabilities` (r, o), or
`prediction` (r,) float64 in the target's own unit; of several targets, whose names are in the metadata, `labels` (r, t)
strings with `probabilities` (r, t) of each one's second value, or `prediction` (r, t). Rows, pixels and steps may be others
in every call.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor, nn

from service.errors import Conflict
from workers.archive.read import read_archive
from workers.plain.foreign import sentence
from workers.plain.loader import Model
from workers.plain.network import FAMILIES
from workers.plain.preprocessing import module_of
from workers.plain.sequence import Gru, RecurrentLayer

_ML = helper.make_opsetid("ai.onnx.ml", 3)

Inputs = Mapping[str, tuple[Tensor, dict[int, str]]]
"""By name: an example, whose values do not matter, and what the axes are called that may have another size."""


def to_onnx(archive: bytes) -> bytes:
    """The ONNX model of an archive, of any format.

    Raises:
        Conflict: Its network is of a family that is not known here, or is a module of the user's own that the exporter
            does not know, or onnxruntime computes otherwise.
    """
    about, fitted, weights = read_archive(archive)
    family = about["model"]["family"]
    if family not in FAMILIES:
        raise Conflict(f"networks of the family {family!r} can't be exported to ONNX")
    model = Model.of(about, fitted, weights)
    outputs, _ = MEANINGS[about["task"]]
    inputs = INPUTS[fitted.get("layout", "table")](fitted)
    if family == "module":
        part = _of_module(_Whole(model), _as_trained(inputs, about["model"]["inputs"]), outputs)
    else:
        part = exported(_Whole(model), inputs, outputs)
    made = with_texts(part, about, fitted)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _of_module(whole: nn.Module, inputs: Inputs, outputs: Sequence[str]) -> ModelProto:
    """A module of the user's own, of which nothing is known; checked in onnxruntime, where that is installed."""
    try:
        made = exported(whole, inputs, outputs)
    except Exception as error:  # of the exporter, or of the module, of whatever kind
        raise Conflict(f"the module can't be exported to ONNX: {sentence(error)}") from error
    if find_spec("onnxruntime") is None:
        return made
    import onnxruntime

    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    given = [example for example, _ in inputs.values()]
    wanted = {each.name for each in session.get_inputs()}
    found = session.run(None, {name: x.numpy() for name, x in zip(inputs, given, strict=True) if name in wanted})
    with torch.no_grad():
        expected = whole.eval()(*given)
    if not all(np.allclose(ours, theirs, rtol=1e-3, atol=1e-4) for ours, theirs in zip(expected, found, strict=True)):
        raise Conflict("the module's ONNX model computes something else than the module")
    return made


def _as_trained(inputs: Inputs, shape: Sequence[int]) -> Inputs:
    """Inputs for a module that need not take other sizes than those of training: only the rows may vary."""
    sizes = {"images": (2, *shape[1:], shape[0]), "series": (2, *shape)}
    generator = torch.Generator().manual_seed(0)
    fixed: dict[str, tuple[Tensor, dict[int, str]]] = {}
    for name, (example, axes) in inputs.items():
        rows = {0: axes[0]}
        if name in sizes:
            fixed[name] = torch.randn(sizes[name], generator=generator), rows
        else:
            fixed[name] = (torch.full((2,), shape[0]) if name == "lengths" else example), rows
    return fixed


def exported(module: nn.Module, inputs: Inputs, outputs: Sequence[str]) -> ModelProto:
    """A module whose ``forward`` takes ``*inputs`` in their order, and returns a tuple of the outputs."""
    examples, axes = zip(*inputs.values(), strict=True)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            examples,
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None, "the exporter of dynamo returns one"
    made: ModelProto = program.model_proto
    for node in made.graph.node:
        del node.metadata_props[:]  # from which lines of which files of this machine it came
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that it does not need, and of its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class _Whole(nn.Module):
    """Preprocessing, network, and what its outputs mean."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._about = model.about
        self.preprocessing = module_of(model.preprocessing)
        self.network = model.network
        for layer in self.network.modules():
            if isinstance(layer, RecurrentLayer):
                layer.register_module("gru", _OneNode(layer.gru))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """From what the preprocessing takes to the outputs of `MEANINGS`."""
        _, meaning = MEANINGS[self._about["task"]]
        return meaning(self._about, self.network(self.preprocessing(*inputs)))


class _OneNode(nn.Module):
    """The units of a `Gru` as ONNX's own node, which has any number of steps; `nn.GRU` keeps them only in a first export.

    It runs over padding too, which follows the series: no state that counts depends on it.
    """

    of_input: Tensor
    of_state: Tensor
    bias: Tensor

    def __init__(self, units: Gru) -> None:
        super().__init__()
        of_input, of_state, *biases = (_gates(own.detach()) for own in units.parameters())
        for name, own in (("of_input", of_input), ("of_state", of_state), ("bias", torch.cat(biases))):
            self.register_buffer(name, own[None])
        self._width = units.width

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(r, t, inputs) and ``real`` (r, t) to the states (r, t, width)."""
        steps = x.transpose(0, 1)
        states: Tensor = torch.onnx.ops.symbolic(
            "GRU",
            (steps, self.of_input, self.of_state, self.bias),
            {"hidden_size": self._width, "linear_before_reset": 1},
            dtype=x.dtype,
            shape=(steps.shape[0], 1, steps.shape[1], self._width),
        )
        return states.squeeze(1).transpose(0, 1)


def _gates(own: Tensor) -> Tensor:
    """Reset, update and new, as torch has them, in the order of ONNX: update, reset, new."""
    reset, update, new = own.chunk(3)
    return torch.cat([update, reset, new])


def _classes(about: Mapping[str, Any], out: Tensor) -> tuple[Tensor, ...]:
    biases = about.get("class_biases")
    decided = out if biases is None else out + torch.tensor(biases)
    return decided.argmax(1), (out / about.get("temperature", 1.0)).softmax(1)


def _labels(about: Mapping[str, Any], out: Tensor) -> tuple[Tensor, ...]:
    biases = about.get("class_biases")
    decided = out if biases is None else out + torch.tensor(biases)
    # Each value by its index among all values of all labels, of which ONNX makes texts.
    first = 2 * torch.arange(len(about["levels"]))
    return first + (decided > 0), (out / about.get("temperature", 1.0)).sigmoid()


def _number(about: Mapping[str, Any], out: Tensor) -> tuple[Tensor, ...]:
    # As tensors: the exporter takes numbers of Python for single precision.
    scale, mean = (torch.tensor(about["target_scale"][name], dtype=torch.float64) for name in ("scale", "mean"))
    return ((out if scale.ndim else out[:, 0]).double() * scale + mean,)


MEANINGS: Mapping[str, tuple[Sequence[str], Callable[[Mapping[str, Any], Tensor], tuple[Tensor, ...]]]] = {
    "classification": (("class", "probabilities"), _classes),
    "multilabel": (("values", "probabilities"), _labels),
    "regression": (("prediction",), _number),
}
"""By task: what torch makes of a network's outputs (r, o), and how that is called; `class` and `values` are indices."""


def _of_table(fitted: Mapping[str, Any]) -> Inputs:
    numbers, words = (len(fitted[part]["columns"]) for part in ("numbers", "words"))
    return {
        "numbers": (torch.zeros(2, numbers, dtype=torch.float64), {0: "rows"}),
        "codes": (torch.zeros(2, words, dtype=torch.int64), {0: "rows"}),
    }


def _of_images(fitted: Mapping[str, Any]) -> Inputs:
    return {"images": (torch.zeros(2, 8, 9, len(fitted["mean"])), {0: "rows", 1: "height", 2: "width"})}


def _of_series(fitted: Mapping[str, Any]) -> Inputs:
    series = torch.zeros(2, 3, len(fitted["mean"]))
    return {"series": (series, {0: "rows", 1: "steps"}), "lengths": (torch.tensor([3, 3]), {0: "rows"})}


INPUTS: Mapping[str, Callable[[Mapping[str, Any]], Inputs]] = {
    "table": _of_table,
    "image": _of_images,
    "sequence": _of_series,
}
"""What torch's part of a model takes, by how its examples are laid out; `codes` are those of a table's categories."""


def with_texts(made: ModelProto, about: Mapping[str, Any], fitted: Mapping[str, Any]) -> ModelProto:
    """The model with texts for what torch has as numbers, the codes of categories and the index of a class."""
    numbers, words = (fitted.get(part, {"columns": []}) for part in ("numbers", "words"))
    empty = {"numbers"} if not numbers["columns"] else set()
    inputs = [each for each in made.graph.input if each.name not in {"codes", *empty}]
    outputs, before, after = list(made.graph.output), [], []
    if words["columns"]:
        inputs.append(_texts("categories", ["rows", len(words["columns"])]))
        before = _coded(words)
    if about["task"] == "classification":
        outputs[0] = _texts("label", ["rows"])
        named = {"keys_int64s": list(range(len(about["classes"]))), "values_strings": about["classes"]}
        after = [helper.make_node("LabelEncoder", ["class"], ["label"], domain=_ML.domain, **named)]
    if about["task"] == "multilabel":
        outputs[0] = _texts("labels", ["rows", len(about["levels"])])
        texts = [value for pair in about["levels"] for value in pair]
        named = {"keys_int64s": list(range(len(texts))), "values_strings": texts}
        after = [helper.make_node("LabelEncoder", ["values"], ["labels"], domain=_ML.domain, **named)]
    nodes = [*before, *made.graph.node, *after]
    graph = helper.make_graph(nodes, "regsearch", inputs, outputs, made.graph.initializer)
    opsets = [*made.opset_import, _ML]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="regsearch", ir_version=made.ir_version)
    columns = {"numbers.columns": numbers["columns"], "categories.columns": words["columns"]}
    of_table = columns if fitted["kind"] == "table" else {}
    several = {} if isinstance(about["target"], str) else {"targets": about["target"]}
    told = {**of_table, **several, "classes": about["classes"], "study": about["study"]}
    helper.set_model_props(model, {name: json.dumps(value) for name, value in told.items()})
    return model


def _texts(name: str, shape: Sequence[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.STRING, shape)


def _coded(words: Mapping[str, Any]) -> list[NodeProto]:
    """From `categories` (r, m) to `codes` (r, m). The empty text counts as what filled the gaps in training."""
    places = range(len(words["columns"]))
    texts, codes = ([f"{kind}.{place}" for place in places] for kind in ("text", "code"))
    nodes = [helper.make_node("Split", ["categories"], texts, axis=1, num_outputs=len(texts))]
    for text, code, fill, levels, shared in zip(texts, codes, words["fill"], words["levels"], words["shared"], strict=True):
        known = {"": levels.get(fill, shared), **levels}
        table = {"keys_strings": list(known), "values_int64s": list(known.values()), "default_int64": shared}
        nodes.append(helper.make_node("LabelEncoder", [text], [code], domain=_ML.domain, **table))
    return [*nodes, helper.make_node("Concat", codes, ["codes"], axis=1)]

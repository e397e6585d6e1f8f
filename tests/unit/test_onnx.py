"""A model of ONNX says in onnxruntime what the service's network says: every family, preprocessing included."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from workers.data.preprocessor import ArrayScaler, text_of
from workers.data.scaling import Scaler

from service.errors import Conflict
from service.onnx_export import to_onnx
from service.onnx_export.graph import Graph
from service.onnx_export.quantiles import normal_quantiles
from service.spec.model import ACTIVATIONS, NORMALIZATIONS
from tests.unit.archives import ABOUT, a_fold, people, shaped, untrained
from tests.unit.test_whole_studies import Bench
from workers.answer.networks import outputs
from workers.archive import Trained, build_archive
from workers.data import DataSource, Fold, PrepareOptions, RawTable, load_table
from workers.plain.loader import Model


def in_onnxruntime(archive: bytes, table: RawTable) -> list[Any]:
    session = opened(archive)
    properties = session.get_modelmeta().custom_metadata_map
    numbers, words = (json.loads(properties[f"{name}.columns"]) for name in ("numbers", "categories"))
    inputs: dict[str, Any] = {}
    if numbers:
        inputs["numbers"] = table.features[numbers].to_numpy(dtype=np.float64)
    if words:
        texts = table.features[words].astype(object).map(lambda value: "" if pd.isna(value) else text_of(value))
        inputs["categories"] = texts.to_numpy(dtype=object)
    found: list[Any] = session.run(None, inputs)
    return found


def opened(archive: bytes) -> Any:
    return onnxruntime.InferenceSession(to_onnx(archive), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("normalization", "activation"),
    [("none", "relu"), ("batch", "gelu"), ("layer", "silu"), ("group", "tanh"), ("weight", "elu")],
)
def test_onnx_classifies_as_pytorch_does(normalization: str, activation: str, tmp_path: Path) -> None:
    table = load_table(DataSource("classification", path=people(tmp_path / "people.csv"), target="class"))
    fold = a_fold(table)
    after = "after" if normalization in ("layer", "group") else "before"
    order: dict[str, Any] = {"normalization_position": after, "skip_connections": normalization != "none"}
    order["embedding"] = 600 if normalization in ("none", "batch") else 0
    model = untrained(fold, 3, normalization=normalization, activation=activation, **order)
    label, probabilities = in_onnxruntime(build_archive(model, {**ABOUT, "classes": list(table.labels)}), table)
    expected = outputs(model.shape, model.weights, torch.from_numpy(fold.preprocessor.apply(table.features))).softmax(1)  # type: ignore[arg-type]
    np.testing.assert_allclose(probabilities, expected.numpy(), rtol=1e-5, atol=1e-5)
    sure = np.sort(expected.numpy())[:, -1] - np.sort(expected.numpy())[:, -2] > 1e-5
    assert sure.sum() > 100
    assert np.array(label)[sure].tolist() == [table.labels[index] for index in expected.argmax(1)[sure]]


@pytest.mark.parametrize(
    ("scaling", "categories"),
    [("standard", "onehot"), ("minmax", "ordinal"), ("log", "onehot"), ("none", "ordinal"), ("quantile", "onehot")],
)
def test_onnx_preprocesses_as_training_did(scaling: Any, categories: Any, tmp_path: Path) -> None:
    table = load_table(DataSource("regression", path=people(tmp_path / "people.csv"), target="income"))
    options = PrepareOptions(scaling=scaling, categories=categories, flag_missing=True, max_levels=3)
    fold = a_fold(table, options)
    model = untrained(fold, 1)
    (prediction,) = in_onnxruntime(build_archive(model, {**ABOUT, "task": "regression"}), table)
    expected = outputs(model.shape, model.weights, torch.from_numpy(fold.preprocessor.apply(table.features)))[:, 0]  # type: ignore[arg-type]
    restored = fold.target.restore(expected.numpy())
    np.testing.assert_allclose(prediction, restored, rtol=3e-5, atol=1e-6 * np.abs(restored).max())


def test_quantiles_are_the_service_s_own() -> None:
    """Counts, a constant, ties at both ends, wide tails; at the quantiles, between them, and beyond."""
    rng = np.random.default_rng(0)
    rows = 4000
    columns = (rng.poisson(1.0, rows), np.full(rows, 3.0), np.clip(rng.normal(size=rows), -1, 1), rng.standard_cauchy(rows))
    fitted = np.stack(columns, axis=1).astype(np.float64)
    for count in (10, 127, 128, 1000):
        quantiles = np.quantile(fitted, np.linspace(0.0, 1.0, count), axis=0)
        x = np.concatenate([fitted[:500], quantiles, quantiles[[0, -1]] * 3.0 + [[-1.0], [1.0]], quantiles + 1e-8])
        expected = Scaler("quantile", np.zeros(4), np.ones(4), quantiles).apply(x)
        graph = Graph()
        out = normal_quantiles(graph, "x", quantiles)
        (found,) = run_graph(graph, out, x)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        assert np.unique(expected[:, 3]).size > 400


def run_graph(graph: Graph, out: str, x: NDArray[np.float64]) -> Any:
    values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["r", x.shape[1]]) for name in ("x", out)]
    made = helper.make_graph(graph.nodes, "part", values[:1], values[1:], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})


def compare(model: Trained, inputs: Mapping[str, NDArray[Any]]) -> None:
    """What the ONNX model and the service's network, which has one output, say of the same arrays, to its scale."""
    (found,) = opened(build_archive(model, {**ABOUT, "task": "regression"})).run(None, inputs)
    assert isinstance(model.fold.preprocessor, ArrayScaler)
    x = torch.from_numpy(model.fold.preprocessor.apply(*inputs.values()))
    expected = model.fold.target.restore(outputs(model.shape, model.weights, x)[:, 0].numpy())
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * largest)
    assert expected.std() > 5e-3 * largest


def array_fold(path: Path, layout: Any) -> Fold:
    return a_fold(load_table(DataSource("classification", path=shaped(path, layout), format="npz", layout=layout)))


CNNS: list[dict[str, Any]] = [
    *({"normalization": each, "activation": act} for each, act in zip(NORMALIZATIONS["cnn"], ACTIVATIONS * 2, strict=False)),
    *({"downsampling": each, "blocks": 2, "pooling": "max", "normalization": "weight"} for each in ("max", "average")),
    {"shortcuts": False, "downsampling": "average"},
]


@pytest.mark.parametrize("settings", CNNS, ids=str)
def test_images_are_seen_as_pytorch_sees_them(settings: dict[str, Any], tmp_path: Path) -> None:
    """Of two sizes, odd ones among them, whole numbers and others; what is missing or infinite is the mean."""
    model = untrained(array_fold(tmp_path / "rows.npz", "image"), 1, "cnn", widths=(8, 12, 18), **settings)
    rng = np.random.default_rng(0)
    for height, width in ((8, 9), (13, 6)):
        x = (rng.integers(0, 255, (40, height, width, 3)) * rng.random((40, 1, 1, 3))).astype(np.float32)
        x[rng.random(x.shape) < 0.02], x[rng.random(x.shape) < 0.02] = np.nan, -np.inf
        compare(model, {"images": x})


SERIES: list[dict[str, Any]] = [
    *(
        {"cell": cell, "normalization": each, "pooling": how}
        for cell in ("gru", "transformer")
        for each, how in zip(NORMALIZATIONS["sequence"], ("mean", "max", "last", "mean"), strict=True)
    ),
    *(
        {"cell": "transformer", "normalization": "layer", "activation": each, "widths": (9, 12), "heads": 3}
        for each in ACTIVATIONS
    ),
]


@pytest.mark.parametrize("settings", SERIES, ids=str)
def test_series_are_read_as_pytorch_reads_them(settings: dict[str, Any], tmp_path: Path) -> None:
    """Of any length: none at all, and more than there are steps."""
    values: dict[str, Any] = {"widths": (8, 12), "normalization_groups": 2, **settings}
    model = untrained(array_fold(tmp_path / "rows.npz", "sequence"), 1, "sequence", **values)
    rng = np.random.default_rng(0)
    for steps in (7, 50):
        x = (rng.normal(size=(40, 1, 2)) * 3.0 + rng.normal(2.0, 2.0, (40, steps, 2))).astype(np.float32)
        x[rng.random(x.shape) < 0.1] = np.nan
        lengths = rng.integers(0, steps + 2, 40)
        lengths[:3] = 0, 1, steps + 1
        compare(model, {"series": x, "lengths": lengths})


@pytest.mark.parametrize(("family", "layout"), [("cnn", "image"), ("sequence", "sequence")])
def test_a_trained_study_s_model_is_exported(family: str, layout: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = shaped(tmp_path / "rows.npz", layout)
    shape = {"family": family, "width": 8, "depth": 1}
    record = bench.run(data={"path": str(path), "target": None, "drop": []}, model=shape)
    assert record.result is not None, record.reason
    archive = bench.store.archives.get(record.id).content
    bench.store.close()
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        files.extractall(tmp_path / "model")
    expected = Model.load(tmp_path / "model").probabilities(path)
    with np.load(path) as arrays:
        x = arrays["x"].astype(np.float32)
        inputs = {"images": x} if family == "cnn" else {"series": x, "lengths": arrays["len"]}
    label, found = opened(archive).run(None, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert list(label) == list(Model.load(tmp_path / "model").predict(path))


def test_a_family_without_a_way_to_onnx_is_refused() -> None:
    table = load_table(DataSource("classification", name="wine"))
    archive = build_archive(untrained(a_fold(table), 3), {**ABOUT, "classes": list(table.labels)})
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as files, zipfile.ZipFile(changed, "w") as copy:
        for name in files.namelist():
            copy.writestr(name, files.read(name).replace(b'"family": "mlp"', b'"family": "graph"'))
    with pytest.raises(Conflict, match="family 'graph' can't be exported"):
        to_onnx(changed.getvalue())

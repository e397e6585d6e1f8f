"""A model of ONNX predicts in onnxruntime what the archive's own loader predicts: every family, preprocessing included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.spec.groups.normalization import NORMALIZATIONS
from service.spec.model import ACTIVATIONS
from tests.unit.archives import ABOUT, a_fold, in_format_1, people, shaped, untrained
from workers.archive import build_archive
from workers.archive.onnx import INPUTS, MEANINGS, exported, to_onnx
from workers.archive.read import read_archive
from workers.data import DataSource, PrepareOptions, RawTable, load_table
from workers.plain import preprocessing
from workers.plain.cnn import HALVING
from workers.plain.columns import text_of
from workers.plain.loader import DECODED, Model
from workers.plain.scaling import TRANSFORMS, Scaling
from workers.plain.sequence import POOLING, STEP_NORMS

Session = Any


def test_every_layout_and_every_task_is_known() -> None:
    assert INPUTS.keys() == {"table", *preprocessing.LAYOUTS}
    assert MEANINGS.keys() == DECODED.keys()


def opened(model: bytes) -> Session:
    """A model in onnxruntime, which nothing tells of the machine that it was made on."""
    onnx.checker.check_model(model, full_check=True)
    assert b".py" not in model
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def loaded(archive: bytes) -> Model:
    return Model.of(*read_archive(archive))


def columns(session: Session, name: str) -> list[str]:
    found: list[str] = json.loads(session.get_modelmeta().custom_metadata_map[f"{name}.columns"])
    return found


def predicted(session: Session, rows: pd.DataFrame) -> list[Any]:
    """What onnxruntime makes of a table."""
    numbers, words = columns(session, "numbers"), columns(session, "categories")
    inputs: dict[str, Any] = {}
    if numbers:
        inputs["numbers"] = rows[numbers].to_numpy(dtype=np.float64)
    if words:
        texts = rows[words].astype(object).map(lambda value: "" if pd.isna(value) else text_of(value))
        inputs["categories"] = texts.to_numpy(dtype=object)
    found: list[Any] = session.run(None, inputs)
    return found


def strange(table: RawTable) -> pd.DataFrame:
    """The rows of a table, and some as training never saw them."""
    rows = table.features.head(6).astype(object)
    unseen: dict[str, Any] = {
        "job": ["never seen", None, "Ä, quoted", "x", "missing", "d"],
        "age": [np.nan, -1e6, 1e300, -np.inf, 1e6, 0.0],
    }
    for name in unseen.keys() & set(rows.columns):
        rows[name] = unseen[name]
    return pd.concat([table.features.astype(object), rows])


AFTER = {"normalization_position": "after", "skip_connections": True}
STRONG = {"numeric_embedding": "periodic", "feature_scaling": True, "learnt_activation": True}
MEMBERS = {"numeric_embedding": "piecewise_linear", "members": 4}
TABLES: list[tuple[dict[str, Any], PrepareOptions, str, tuple[str, ...]]] = [
    ({"normalization": "none", "embedding": 600}, PrepareOptions("standard", flag_missing=True), "class", ()),
    ({"normalization": "batch", "embedding": 600, "skip_connections": True}, PrepareOptions("minmax"), "class", ()),
    ({"normalization": "layer", **AFTER}, PrepareOptions("log", flag_missing=True), "class", ("job", "member", "mixed")),
    ({"normalization": "group", **AFTER}, PrepareOptions("none", flag_missing=True, max_levels=3), "income", ()),
    ({"normalization": "weight"}, PrepareOptions("quantile", flag_missing=True, max_levels=3), "income", ()),
    (
        {"normalization": "none", "embedding": 2},
        PrepareOptions(impute_categories="most_frequent"),
        "class",
        ("age", "income", "zip"),
    ),
    ({"normalization": "none", "embedding": 4, **STRONG}, PrepareOptions("robust", flag_missing=True), "income", ()),
    ({"normalization": "layer", **STRONG}, PrepareOptions("robust"), "class", ("job",)),
    ({"normalization": "none", **MEMBERS}, PrepareOptions("quantile"), "class", ()),
    ({"normalization": "layer", "embedding": 4, **MEMBERS}, PrepareOptions("standard"), "income", ()),
]
"""Of the network, the preprocessing, the target, and columns that are left out."""
USED = (*ACTIVATIONS, "relu", "relu", "gelu")
OLD = ("batch", "weight")
"""Normalizations of those that are archives of format 1."""


def test_tables_have_all_words() -> None:
    assert {settings["normalization"] for settings, *_ in TABLES} == set(NORMALIZATIONS["mlp"])
    assert {options.scaling for _, options, *_ in TABLES} == TRANSFORMS.keys()


@pytest.mark.filterwarnings("ignore::workers.plain.loader.NotUnderstood")  # the rows hold what training never saw
@pytest.mark.parametrize(("case", "activation"), [*zip(TABLES, USED, strict=True)], ids=str)
def test_tables_are_read_as_pytorch_reads_them(case: Any, activation: str, tmp_path: Path) -> None:
    """Gaps, texts and numbers that training never saw; many rows, and one."""
    settings, options, target, drop = case
    task = "classification" if target == "class" else "regression"
    table = load_table(DataSource(task, path=people(tmp_path / "people.csv"), target=target, drop=drop))
    made = untrained(a_fold(table, options), 3 if target == "class" else 1, activation=activation, **settings)
    calibrated = {"temperature": 2.5, "class_biases": [0.5, -1.0, 2.0]} if task == "classification" else {}
    archive = build_archive(made, {**ABOUT, "task": task, "classes": list(table.labels), **calibrated})
    session = opened(to_onnx(in_format_1(archive) if settings["normalization"] in OLD else archive))
    model, rows = loaded(archive), strange(table)
    for some in (rows, rows[:7], rows[-1:]):
        if task == "classification":
            compare_classes(predicted(session, some), model, some)
        else:
            (prediction,) = predicted(session, some)
            np.testing.assert_allclose(prediction, model.predict(some), rtol=3e-5)


def compare_classes(found: Sequence[Any], model: Model, rows: Any) -> None:
    """Labels and probabilities; where two classes are level, either may be the label."""
    label, probabilities = found
    expected = model.probabilities(rows)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5, atol=1e-5)
    biases = np.array(model.about.get("class_biases") or np.zeros(expected.shape[1])) / model.about.get("temperature", 1.0)
    second, first = np.sort(np.log(expected.clip(1e-300)) + biases)[:, -2:].T
    sure = first - second > 1e-4
    assert sure.mean() > 0.5
    assert np.array(label)[sure].tolist() == model.predict(rows)[sure].tolist()


class Scalings(nn.Module):
    """The same columns by each of several scalings."""

    def __init__(self, scalings: Sequence[Scaling]) -> None:
        super().__init__()
        self.scalings = nn.ModuleList(scalings)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """(r, d) to as many of these as there are scalings."""
        (x,) = inputs
        return tuple(each(x) for each in self.scalings)


def test_quantiles_are_the_service_s_own() -> None:
    """Counts, a constant, ties at both ends, wide tails; at the quantiles, between them, and beyond."""
    rng = np.random.default_rng(0)
    rows = 4000
    of = (rng.poisson(1.0, rows), np.full(rows, 3.0), np.clip(rng.normal(size=rows), -1, 1), rng.standard_cauchy(rows))
    fitted = np.stack(of, axis=1).astype(np.float64)
    all_quantiles = [np.quantile(fitted, np.linspace(0.0, 1.0, count), axis=0) for count in (10, 127, 128, 1000)]
    unscaled: dict[str, Any] = {"kind": "quantile", "shift": [0.0] * 4, "scale": [1.0] * 4}
    module = Scalings([Scaling({**unscaled, "quantiles": quantiles.tolist()}) for quantiles in all_quantiles])
    made = exported(module, {"x": (torch.zeros(2, 4, dtype=torch.float64), {0: "rows"})}, ["a", "b", "c", "d"])
    session = opened(made.SerializeToString())
    for place, quantiles in enumerate(all_quantiles):
        x = np.concatenate([fitted[:500], quantiles, quantiles[[0, -1]] * 3.0 + [[-1.0], [1.0]], quantiles + 1e-8])
        expected = module(torch.from_numpy(x))[place].numpy()
        np.testing.assert_allclose(session.run(None, {"x": x})[place], expected, rtol=1e-9, atol=1e-9)
        assert np.unique(expected[:, 3]).size > 400


def compare(session: Session, model: Model, inputs: Mapping[str, NDArray[Any]]) -> None:
    """What the ONNX model and the archive's make of the same arrays, to its scale; there is one output."""
    (found,) = session.run(None, inputs)
    series = {"x": inputs["series"], "lengths": inputs["lengths"]} if "series" in inputs else {"x": inputs["images"]}
    expected = model.predict(series)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * largest)
    assert len(found) == 1 or expected.std() > 5e-3 * largest


def both(path: Path, layout: Any, family: str, **settings: Any) -> tuple[Session, Model]:
    """A network of one output, of ONNX and of PyTorch."""
    table = load_table(DataSource("classification", path=shaped(path, layout), format="npz", layout=layout))
    archive = build_archive(untrained(a_fold(table), 1, family, **settings), {**ABOUT, "task": "regression"})
    return opened(to_onnx(archive)), loaded(archive)


CNNS: list[dict[str, Any]] = [
    {"normalization": "none", "activation": "relu", "widths": (8, 12, 18)},
    {"normalization": "batch", "activation": "gelu", "downsampling": "max", "pooling": "max"},
    {"normalization": "layer", "activation": "silu", "downsampling": "average", "shortcuts": False},
    {"normalization": "group", "activation": "tanh", "pooling": "max"},
    {"normalization": "instance", "activation": "elu", "downsampling": "max"},
    {"normalization": "local_response", "activation": "selu", "downsampling": "average"},
    {"normalization": "weight", "activation": "mish", "downsampling": "average", "pooling": "max", "blocks": 2},
]


def test_networks_for_images_have_all_words() -> None:
    assert [each["normalization"] for each in CNNS] == list(NORMALIZATIONS["cnn"])
    assert {each["activation"] for each in CNNS} == set(ACTIVATIONS)
    assert {each.get("downsampling", "strided") for each in CNNS} == HALVING.keys()


@pytest.mark.parametrize("settings", CNNS, ids=str)
def test_images_are_read_as_pytorch_reads_them(settings: dict[str, Any], tmp_path: Path) -> None:
    """Of two sizes, odd ones among them, whole numbers and others; what is missing or infinite is the mean."""
    session, model = both(tmp_path / "rows.npz", "image", "cnn", **{"widths": (8, 12), **settings})
    rng = np.random.default_rng(0)
    for rows, height, width in ((40, 8, 9), (40, 13, 6), (1, 17, 30)):
        x = (rng.integers(0, 255, (rows, height, width, 3)) * rng.random((rows, 1, 1, 3))).astype(np.float32)
        x[rng.random(x.shape) < 0.02], x[rng.random(x.shape) < 0.02] = np.nan, -np.inf
        compare(session, model, {"images": x})


SERIES: list[dict[str, Any]] = [
    {"cell": "gru", "normalization": "none", "pooling": "mean", "widths": (8, 12)},
    {"cell": "gru", "normalization": "batch", "pooling": "max"},
    {"cell": "gru", "normalization": "layer", "pooling": "last", "widths": (8, 12)},
    {"cell": "gru", "normalization": "group", "pooling": "mean"},
    {"cell": "transformer", "normalization": "none", "pooling": "mean", "activation": "relu"},
    {"cell": "transformer", "normalization": "batch", "pooling": "max", "activation": "gelu", "widths": (8, 12)},
    {"cell": "transformer", "normalization": "layer", "pooling": "last", "activation": "silu"},
    {"cell": "transformer", "normalization": "group", "pooling": "max", "activation": "tanh"},
    {"cell": "transformer", "normalization": "layer", "activation": "elu", "widths": (9, 12), "heads": 3},
    {"cell": "transformer", "normalization": "layer", "activation": "selu"},
    {"cell": "transformer", "normalization": "layer", "activation": "mish"},
]


def test_networks_for_series_have_all_words() -> None:
    for cell in ("gru", "transformer"):
        own = [each for each in SERIES if each["cell"] == cell]
        assert {each["normalization"] for each in own} == set(NORMALIZATIONS["sequence"]) == STEP_NORMS.keys()
        assert {each.get("pooling", "mean") for each in own} == POOLING.keys()
    assert {each["activation"] for each in SERIES if "activation" in each} == set(ACTIVATIONS)


@pytest.mark.parametrize("settings", SERIES, ids=str)
def test_series_are_read_as_pytorch_reads_them(settings: dict[str, Any], tmp_path: Path) -> None:
    """Of any length: none at all, and more than there are steps."""
    given: dict[str, Any] = {"widths": (8,), "normalization_groups": 2, **settings}
    session, model = both(tmp_path / "rows.npz", "sequence", "sequence", **given)
    rng = np.random.default_rng(0)
    for steps in (7, 50):
        x = (rng.normal(size=(40, 1, 2)) * 3.0 + rng.normal(2.0, 2.0, (40, steps, 2))).astype(np.float32)
        x[rng.random(x.shape) < 0.1] = np.nan
        lengths = rng.integers(0, steps + 2, 40)
        lengths[:3] = 0, 1, steps + 1
        compare(session, model, {"series": x, "lengths": lengths})
        compare(session, model, {"series": x[3:4], "lengths": lengths[3:4]})

"""A downloaded model gives the predictions of the service, in a process that has neither the service nor pandas."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.unit.archives import ABOUT, a_fold, people, shaped, unpacked, untrained
from workers.answer.candidates import Weights
from workers.answer.networks import outputs as outputs_of
from workers.archive import build_archive
from workers.archive.start import read_start
from workers.data import DataSource, PrepareOptions, load_table
from workers.data.prepare import features
from workers.plain import preprocessing
from workers.plain.loader import Model
from workers.plain.network import Shape, adopt, build
from workers.plain.preprocessing import CannotPredict

# Nothing of the service, and nothing but what the loader says it needs, can be imported in here.
ALONE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("service", "workers", "pandas", "sklearn", "scipy", "optuna"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
import numpy, torch
torch.set_num_threads(int(sys.argv[4]))
from loader import Model
model = Model.load(sys.argv[1])
out = model.outputs(sys.argv[2])
numpy.savez(sys.argv[3], out=out.numpy(), predictions=model.predict(sys.argv[2]).astype("U40"))
"""


ALONE_TRAINING = """
import runpy, sys
sys.argv = [sys.argv[1] + "/train.py", sys.argv[2]]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not {"service", "workers", "pandas", "sklearn", "optuna"} & set(sys.modules), sorted(sys.modules)
"""


def outputs(shape: Shape, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Of one network, for which the task makes no difference."""
    return outputs_of(shape, weights, x, "classification")


def alone(directory: Path, rows: Path, tmp_path: Path) -> tuple[np.ndarray[Any, Any], list[str]]:
    found = tmp_path / "found.npz"
    command = [sys.executable, "-I", "-c", ALONE, str(directory), str(rows), str(found), str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(found) as arrays:
        return arrays["out"], arrays["predictions"].tolist()


@pytest.mark.parametrize("embedding", [0, 3])
def test_a_classifier_says_the_same_alone(embedding: int, tmp_path: Path) -> None:
    rows = people(tmp_path / "people.csv")
    table = load_table(DataSource("classification", path=rows, target="class", categorical=("zip",)))
    fold = a_fold(table)
    order: dict[str, Any] = {"normalization_position": "after", "skip_connections": True, "embedding": embedding}
    model = untrained(fold, 3, normalization="batch", activation="gelu", **order)
    assert sum(name.startswith("embeddings.") for name in model.networks[0]) == (4 if embedding else 0)
    archive = build_archive(model, {**ABOUT, "classes": list(table.labels)})
    expected = outputs(
        model.shape, model.networks[0], torch.from_numpy(preprocessing.features(table.features, fold.preprocessor))
    )
    out, labels = alone(unpacked(archive, tmp_path / "model"), rows, tmp_path)
    np.testing.assert_array_equal(out, expected.numpy())
    assert labels == [table.labels[index] for index in expected.argmax(1)]


@pytest.mark.parametrize(("normalization", "scaling"), [("layer", "quantile"), ("group", "log"), ("weight", "minmax")])
def test_a_regression_says_the_same_alone(normalization: str, scaling: Any, tmp_path: Path) -> None:
    rows = people(tmp_path / "people.csv")
    table = load_table(DataSource("regression", path=rows, target="income"))
    fold = a_fold(table, PrepareOptions(scaling=scaling, max_levels=6))
    model = untrained(fold, 1, normalization=normalization, activation="elu")
    archive = build_archive(model, {**ABOUT, "task": "regression", "target": "income"})
    expected = outputs(
        model.shape, model.networks[0], torch.from_numpy(preprocessing.features(table.features, fold.preprocessor))
    )
    out, predictions = alone(unpacked(archive, tmp_path / "model"), rows, tmp_path)
    np.testing.assert_array_equal(out, expected.numpy())
    np.testing.assert_array_equal(np.array(predictions, dtype=float), fold.target.restore(expected[:, 0].numpy()))


def test_probabilities_are_those_at_the_models_temperature(tmp_path: Path) -> None:
    rows = people(tmp_path / "people.csv")
    table = load_table(DataSource("classification", path=rows, target="class"))
    made, about = untrained(a_fold(table), 3), {**ABOUT, "classes": list(table.labels)}
    plain, cool = (
        Model.load(unpacked(build_archive(made, {**about, **more}), tmp_path / name))
        for name, more in (("plain", {}), ("cool", {"temperature": 3.0}))
    )
    powers = plain.probabilities(rows) ** (1 / 3)
    np.testing.assert_allclose(cool.probabilities(rows), powers / powers.sum(1, keepdims=True), rtol=1e-5)
    assert list(cool.predict(rows)) == list(plain.predict(rows))


def test_a_model_decides_by_its_thresholds(tmp_path: Path) -> None:
    rows = people(tmp_path / "people.csv")
    table = load_table(DataSource("classification", path=rows, target="class"))
    made, about = untrained(a_fold(table), 3), {**ABOUT, "classes": list(table.labels), "temperature": 2.0}
    plain, decided = (
        Model.load(unpacked(build_archive(made, {**about, **more}), tmp_path / name))
        for name, more in (("plain", {}), ("decided", {"class_biases": [0.0, 1.2, -0.8]}))
    )
    np.testing.assert_array_equal(decided.probabilities(rows), plain.probabilities(rows))
    biased = 2.0 * np.log(plain.probabilities(rows)) + [0.0, 1.2, -0.8]  # of the outputs before the temperature
    assert list(decided.predict(rows)) == [table.labels[place] for place in biased.argmax(1)]
    assert list(decided.predict(rows)) != list(plain.predict(rows))


def test_rows_come_as_a_frame_or_as_columns_too(tmp_path: Path) -> None:
    rows = people(tmp_path / "people.csv")
    table = load_table(DataSource("classification", path=rows, target="class"))
    archive = build_archive(untrained(a_fold(table), 3), {**ABOUT, "classes": list(table.labels)})
    model = Model.load(unpacked(archive, tmp_path / "model"))
    expected = model.probabilities(rows)
    np.testing.assert_array_equal(model.probabilities(table.features), expected)
    columns = {str(name): table.features[name].tolist() for name in table.features.columns}
    np.testing.assert_array_equal(model.probabilities(columns), expected)
    np.testing.assert_allclose(expected.sum(1), 1.0)


def test_an_archive_is_the_same_bytes_every_time_and_holds_no_pickle(tmp_path: Path) -> None:
    table = load_table(DataSource("classification", name="wine"))
    model = untrained(a_fold(table), 3)
    archive = build_archive(model, {**ABOUT, "classes": list(table.labels)})
    assert archive == build_archive(model, {**ABOUT, "classes": list(table.labels)})
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        assert files.namelist()[:6] == [
            *("weights.safetensors", "recipe.json", "preprocessing.json", "README.md", "loader.py", "train.py")
        ]
        for path in Path(str(preprocessing.__file__)).parent.glob("*.py"):
            assert files.read(f"plain/{path.name}") == path.read_bytes()
        assert json.loads(files.read("recipe.json"))["recipe"]["widths"] == [24, 24, 12]
        assert "| validation | 0.5 |" in files.read("README.md").decode()
        code = b"".join(files.read(name) for name in files.namelist() if name.endswith(".py"))
        assert b"pickle" not in code.replace(b"allow_pickle=False", b"")


@pytest.mark.parametrize(
    ("family", "layout", "settings"),
    [
        ("cnn", "image", {"normalization": "batch", "shortcuts": True, "blocks": 2, "downsampling": "max"}),
        ("sequence", "sequence", {"normalization": "batch", "cell": "gru", "pooling": "last"}),
        ("sequence", "sequence", {"normalization": "layer", "cell": "transformer", "heads": 4}),
    ],
)
def test_networks_of_other_families_say_the_same_alone(
    family: str, layout: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    rows = shaped(tmp_path / "rows.npz", layout)
    table = load_table(DataSource("classification", path=rows, format="npz", layout=layout))
    fold = a_fold(table)
    model = untrained(fold, 3, family, **settings)
    archive = build_archive(model, {**ABOUT, "classes": list(table.labels)})
    x = features(table, np.arange(table.rows), fold.preprocessor)
    expected = outputs(model.shape, model.networks[0], torch.from_numpy(x))
    out, labels = alone(unpacked(archive, tmp_path / "model"), rows, tmp_path)
    np.testing.assert_array_equal(out, expected.numpy())
    assert labels == [table.labels[index] for index in expected.argmax(1)]


@pytest.mark.parametrize(
    ("family", "layout", "settings"),
    [
        ("mlp", "flat", {"normalization": "batch", "normalization_position": "after"}),
        ("mlp", "flat", {"normalization": "weight", "skip_connections": True}),
        ("mlp", "flat", {"normalization": "group", "embedding": 3}),
        ("cnn", "image", {"normalization": "weight"}),
        ("sequence", "sequence", {"normalization": "batch", "cell": "gru"}),
    ],
)
def test_a_network_begins_as_the_archive_says(family: str, layout: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    if family == "mlp":
        table = load_table(DataSource("classification", path=people(tmp_path / "people.csv"), target="class"))
    else:
        rows = shaped(tmp_path / "rows.npz", layout)
        table = load_table(DataSource("classification", path=rows, format="npz", layout=layout))
    fold = a_fold(table)
    model = untrained(fold, 3, family, **settings)
    archive = build_archive(model, {**ABOUT, "classes": list(table.labels)})
    start = read_start(archive, table, "class")
    network = build(model.shape)
    adopt(network, start.weights)
    x = torch.from_numpy(features(table, np.arange(table.rows), start.preprocessor))
    expected = outputs(
        model.shape, model.networks[0], torch.from_numpy(features(table, np.arange(table.rows), fold.preprocessor))
    )
    torch.testing.assert_close(network.eval()(x).detach(), expected, rtol=1e-4, atol=1e-5)
    other = read_start(archive, replace(table, labels=("a", "b", "c")), "class")
    assert set(start.weights) - set(other.weights) == {"head.weight", "head.bias"}
    assert (start.target, other.target) == (fold.target, None)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_several_networks_are_averaged_and_the_first_is_what_others_begin_with(task: Any, tmp_path: Path) -> None:
    rows = people(tmp_path / "people.csv")
    table = load_table(DataSource(task, path=rows, target="class" if task == "classification" else "income"))
    fold = a_fold(table)
    one = untrained(fold, table.outputs, normalization="batch")
    networks = [{name: value * scale for name, value in one.networks[0].items()} for scale in (1.0, 0.9, 1.2)]
    archive = build_archive(replace(one, networks=networks), {**ABOUT, "task": task, "classes": list(table.labels)})
    x = torch.from_numpy(features(table, np.arange(table.rows), fold.preprocessor))
    each = torch.stack([outputs(one.shape, weights, x) for weights in networks])
    model = Model.load(unpacked(archive, tmp_path / "model"))
    if task == "classification":
        np.testing.assert_allclose(model.probabilities(rows), each.double().softmax(-1).mean(0).numpy(), atol=1e-5)
    else:
        found = np.array(model.predict(rows), dtype=float)
        np.testing.assert_allclose(found, fold.target.restore(each.mean(0)[:, 0].numpy()), rtol=1e-5)
    start = read_start(archive, table, ABOUT["target"])
    assert set(start.weights) <= set(networks[0])
    assert all(torch.equal(value, networks[0][name]) for name, value in start.weights.items())


def test_an_mlp_reads_arrays_too(tmp_path: Path) -> None:
    rows = shaped(tmp_path / "rows.npz", "image")
    table = load_table(DataSource("classification", path=rows, format="npz"))
    fold = a_fold(table)
    model = untrained(fold, 3)
    loaded = Model.load(unpacked(build_archive(model, {**ABOUT, "classes": list(table.labels)}), tmp_path / "model"))
    x = features(table, np.arange(table.rows), fold.preprocessor)
    expected = outputs(model.shape, model.networks[0], torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(loaded.outputs(rows).numpy(), expected)
    np.testing.assert_array_equal(loaded.outputs(np.load(rows)["x"]).numpy(), expected)


def training_alone(directory: Path, rows: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ALONE_TRAINING, str(directory), str(rows)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)


@pytest.mark.parametrize("layout", ["flat", "sequence"])
def test_the_program_in_an_archive_trains_the_same_network_again(layout: Any, tmp_path: Path) -> None:
    """From scratch, in a process without the service; what it writes down the loader's network takes."""
    if layout == "flat":
        rows = people(tmp_path / "people.csv")
        table = load_table(DataSource("classification", path=rows, target="class", categorical=("zip",)))
        model = untrained(a_fold(table), 3, dropout=0.2, l1=1e-4, mixup=0.3, averaging="ema", normalization="batch")
    else:
        rows = shaped(tmp_path / "rows.npz", layout)
        table = load_table(DataSource("classification", path=rows, format="npz", layout=layout))
        model = untrained(a_fold(table), 3, "sequence", head_dropout=0.3, weight_decay=0.1)
        model = replace(model, training=replace(model.training, target="target"))
    directory = unpacked(build_archive(model, {**ABOUT, "classes": list(table.labels)}), tmp_path / "model")
    done = training_alone(directory, rows, tmp_path)
    assert done.returncode == 0, done.stderr
    epochs = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert 1 <= len(epochs) <= 3
    trained = load_file(tmp_path / "trained.safetensors")
    loaded = Model.load(directory)
    before = {name: value.clone() for name, value in loaded.network.state_dict().items() if value.ndim}
    assert set(trained) == set(before)
    loaded.network.load_state_dict(trained, strict=False)
    assert any(not torch.equal(trained[name], value) for name, value in before.items())


def test_the_program_reads_the_targets_of_a_built_in_data_set_from_a_file(tmp_path: Path) -> None:
    """Its columns are named by the service, and so is the target, whatever the kind of the file."""
    table = load_table(DataSource("classification", name="wine"))
    model = untrained(a_fold(table), 3)
    model = replace(model, training=replace(model.training, target="target"))
    directory = unpacked(build_archive(model, {**ABOUT, "classes": list(table.labels)}), tmp_path / "model")
    labels = [table.labels[index] for index in table.target]
    np.savez(tmp_path / "rows.npz", x=table.features.to_numpy(), y=np.array(labels))
    table.features.assign(target=labels).to_csv(tmp_path / "rows.csv", index=False)
    csv, npz = (training_alone(directory, tmp_path / name, tmp_path) for name in ("rows.csv", "rows.npz"))
    assert csv.returncode == 0, csv.stderr
    assert csv.stdout == npz.stdout
    for name, said in (("none.csv", "No such file"), ("short.csv", "there is no column 'target' of targets")):
        (tmp_path / "short.csv").write_text("x0,x1\n1,2\n")
        refused = training_alone(directory, tmp_path / name, tmp_path)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x1,x0\n1,2\n", "there is no column 'x2', 'x3', 'x4'"),
        ("a,b\n1\n", "line 2: 1 fields, but the header has 2"),
        ("a,b\n", "has no rows"),
    ],
)
def test_what_is_wrong_with_rows_is_told(content: str, said: str, tmp_path: Path) -> None:
    table = load_table(DataSource("classification", name="wine"))
    archive = build_archive(untrained(a_fold(table), 3), {**ABOUT, "classes": list(table.labels)})
    model = Model.load(unpacked(archive, tmp_path / "model"))
    rows = tmp_path / "rows.csv"
    rows.write_text(content)
    with pytest.raises(CannotPredict, match=said):
        model.predict(rows)


def test_missing_values_are_the_same_in_training_and_in_the_loader(tmp_path: Path) -> None:
    """Words of text columns, usual words for gaps in numbers, words that the user names, an unnamed first column."""
    rows = tmp_path / "rows.csv"
    lines = [",size,note,name,class"]
    for row in range(120):
        size, note = row / 7 if row % 5 else "NA", row if row % 6 else "?"
        lines.append(f"{row},{size},{note},{('Ann', 'None', 'NA', '')[row % 4]},{'yn'[row % 2]}")
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = load_table(DataSource("classification", path=rows, target="class", missing=("?",)))
    assert list(table.features.columns) == ["Unnamed: 0", "size", "note", "name"]
    assert table.categorical == ("name",)
    fold = a_fold(table, PrepareOptions(flag_missing=True, missing=("?",)))
    model = untrained(fold, 2)
    expected = outputs(model.shape, model.networks[0], torch.from_numpy(features(table, np.arange(120), fold.preprocessor)))
    directory = unpacked(build_archive(model, {**ABOUT, "classes": list(table.labels)}), tmp_path / "model")
    out, _ = alone(directory, rows, tmp_path)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_columns_may_be_named_by_numbers(tmp_path: Path) -> None:
    model = untrained(a_fold(load_table(DataSource("classification", path=people(tmp_path / "p.csv"), target="class"))), 3)
    read = Model.load(unpacked(build_archive(model, ABOUT), tmp_path / "model"))
    frame = pd.read_csv(tmp_path / "p.csv").convert_dtypes()  # with pandas' own missing value
    expected = read.outputs(tmp_path / "p.csv")
    np.testing.assert_allclose(read.outputs(frame), expected, rtol=1e-4, atol=1e-5)
    names = {name: index for index, name in enumerate(frame.columns)}
    for part in ("numbers", "words"):
        own = read.preprocessing[part]
        own["columns"] = [str(names[name]) for name in own["columns"]]
    np.testing.assert_allclose(read.outputs(frame.rename(columns=names)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layout", "shape"), [("image", (8, 8)), ("sequence", (5, 2))])
def test_a_single_example_is_told_apart_from_an_array_of_them(layout: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    table = load_table(DataSource("classification", path=shaped(tmp_path / "x.npz", layout), format="npz", layout=layout))
    fitted = a_fold(table, PrepareOptions()).preprocessor
    with pytest.raises(CannotPredict, match="the array has the shape"):
        preprocessing.features(np.zeros(shape), fitted)


def test_predictions_in_a_file_are_no_formulas(tmp_path: Path) -> None:
    rows = people(tmp_path / "people.csv")
    model = untrained(a_fold(load_table(DataSource("classification", path=rows, target="class"))), 3)
    labels = ["=HYPERLINK(1)", "@x", "-1.5"]
    directory = unpacked(build_archive(model, {**ABOUT, "classes": labels}), tmp_path / "model")
    found = tmp_path / "found.csv"
    command = [sys.executable, str(directory / "loader.py"), str(rows), "--out", str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    given = set(pd.read_csv(found, dtype=str)["prediction"])
    assert given <= {"'=HYPERLINK(1)", "'@x", "-1.5"}
    assert len(given) > 1

"""What a worker publishes of modules, and what becomes of a module's network in an archive."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mynets.good
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from service.spec import Recipe
from service.spec.modules import Argument
from tests.unit.archives import ABOUT, a_fold, people
from workers.archive import Trained, build_archive
from workers.archive.onnx import to_onnx
from workers.archive.program import Training
from workers.archive.read import read_archive
from workers.data import DataSource, Fold, TargetScale, load_table
from workers.modules import published
from workers.plain import foreign
from workers.plain.loader import Model, NotUnderstood
from workers.plain.network import Shape, build, initialize, outputs
from workers.plain.preprocessing import CannotPredict

THEIRS = Path(mynets.good.__file__).parents[1]


@pytest.fixture(scope="module")
def _importable() -> Iterator[None]:
    """torchvision's kernels for detection are built for CUDA, and it needs their names even where they can't be loaded."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    yield
    del library


def test_a_signature_is_published() -> None:
    (found,) = published(["mynets.good:ResNet"])
    assert found.error is None
    assert found.about == "A small residual network with dropout before its head."
    assert found.arguments == {
        "width": Argument(kind="int", default=8),
        "norm": Argument(kind="word", choices=("batch", "group"), default="batch"),
    }
    assert found.source_sha256 is not None
    assert len(found.source_sha256) == 64


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mynets.bad:NeedsSizes", "needs the argument sizes, which is no number, truth value or text; give it a default"),
        ("mynets.bad:NoInputs", "takes no inputs and no outputs: it has to be NoInputs(inputs, outputs, **arguments)"),
        ("mynets.broken:Net", "ImportError: a package that nobody has"),
        ("mynets.missing:Net", "ModuleNotFoundError: No module named 'mynets.missing'"),
        ("mynets.good:Nothing", "mynets.good has no class Nothing"),
        ("mynets.good", "is not written as package.module:Class"),
    ],
)
def test_what_can_not_be_used_is_published_with_its_reason(name: str, reason: str) -> None:
    (found,) = published([name])
    assert found.error == reason


def test_a_required_argument_is_told() -> None:
    (found,) = published(["mynets.bad:NeedsWidth"])
    assert found.arguments == {"width": Argument(kind="int", required=True)}


# --- archives ------------------------------------------------------------------------------------------------------


def a_model(name: str, inputs: tuple[int, ...], fold: Fold, *, networks: int = 2, **arguments: Any) -> Trained:
    recipe = Recipe({"family": "module", "module": f"mynets.good:{name}", "init": "own", **arguments})
    shape = Shape.of(recipe.effective(), inputs, 3)
    states = []
    for seed in range(networks):
        network = build(shape)
        initialize(network, recipe.effective(), seed)
        state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        states.append({each: value.detach().clone() for each, value in state.items() if value.dtype == torch.float32})
    return Trained(recipe, shape, states, fold, Training("class", 3, "loss"))


def image_fold(channels: int = 2, layout: str = "image") -> Fold:
    nothing = np.zeros((0, 1), dtype=np.float32)
    fitted = {"kind": "array", "version": 1, "layout": layout, "mean": [0.5] * channels, "scale": [2.0] * channels}
    target = np.zeros(0, dtype=np.int64)
    return Fold(nothing, target, nothing, target, TargetScale(), fitted)


def archive_of(name: str, tmp_path: Path, **arguments: Any) -> bytes:
    published([f"mynets.good:{name}"])
    classes = ["no", "perhaps", "yes"]
    match name:
        case "ResNet":
            model = a_model(name, (2, 7, 6), image_fold(), **arguments)
        case "Encoder":
            model = a_model(name, (5, 3), image_fold(3, "sequence"), **arguments)
        case _:
            fold = a_fold(load_table(DataSource("classification", path=people(tmp_path / "rows.csv"), target="class")))
            model = a_model(name, fold.x_train.shape[1:], fold, **arguments)
    return build_archive(model, {**ABOUT, "classes": classes})


@pytest.fixture
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nobody has registered anything."""
    monkeypatch.setattr(foreign, "_REGISTERED", {})


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("name", ["Perceptron", "Tied"])
def test_an_archive_has_the_weights_and_asks_for_the_module(name: str, tmp_path: Path) -> None:
    archive = archive_of(name, tmp_path)
    foreign._REGISTERED.clear()
    about, fitted, weights = read_archive(archive)
    assert about["module"]["name"] == f"mynets.good:{name}"
    with pytest.raises(CannotPredict, match=rf"mynets.good:{name} is not in the archive: Model.load\(…, module={name}\)"):
        Model.of(about, fitted, weights)
    model = Model.of(about, fitted, weights, module=getattr(mynets.good, name))
    probabilities = model.probabilities(tmp_path / "rows.csv")
    assert probabilities.shape == (200, 3)
    again = Model.of(about, fitted, weights).probabilities(tmp_path / "rows.csv")
    np.testing.assert_array_equal(probabilities, again)


@pytest.mark.usefixtures("_forgotten")
def test_the_loader_says_that_the_file_of_a_module_is_another(tmp_path: Path) -> None:
    about, fitted, weights = read_archive(archive_of("Perceptron", tmp_path))
    about["module"]["source_sha256"] = "0" * 64
    with pytest.warns(NotUnderstood, match="the file of mynets.good:Perceptron is not the one that was trained"):
        Model.of(about, fitted, weights, module=mynets.good.Perceptron)


def test_an_archive_by_itself_predicts_and_trains(tmp_path: Path) -> None:
    """In a process that knows the module and nothing of the service."""
    with zipfile.ZipFile(io.BytesIO(archive_of("Perceptron", tmp_path))) as files:
        files.extractall(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        environment = {"PYTHONPATH": str(THEIRS)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    refused = run("loader.py", "rows.csv")
    assert refused.returncode == 1
    assert "--module mynets.good:Perceptron uses yours" in refused.stderr
    done = run("loader.py", "rows.csv", "--module", "mynets.good:Perceptron")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("prediction,probability of no")
    missing = run("loader.py", "rows.csv", "--module", "mynets.good:Nobody")
    assert "mynets.good:Nobody can't be imported" in missing.stderr
    trained = run("train.py", "rows.csv")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith("epoch 0: training loss")


@pytest.mark.parametrize("name", ["ResNet", "Encoder", "Perceptron"])
def test_a_module_is_exported_to_onnx(name: str, tmp_path: Path) -> None:
    archive = archive_of(name, tmp_path)
    model = Model.of(*read_archive(archive))
    session = onnxruntime.InferenceSession(to_onnx(archive), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    match name:
        case "ResNet":
            x = rng.normal(size=(5, 7, 6, 2)).astype(np.float32)
            given: dict[str, Any] = {"images": x}
            rows: Any = x
        case "Encoder":
            rows = rng.normal(size=(4, 5, 3)).astype(np.float32)
            given = {"series": rows, "lengths": np.full(4, 5)}
        case _:
            rows = tmp_path / "rows.csv"
            return  # tables are compared in test_onnx; it was checked against the module as it was made
    np.testing.assert_allclose(session.run(None, given)[1], model.probabilities(rows), rtol=1e-3, atol=1e-4)


# --- packages ------------------------------------------------------------------------------------------------------


needs_vision = pytest.mark.skipif(not (find_spec("torchvision") and find_spec("timm")), reason="needs regsearch[vision]")


@pytest.mark.vision
@needs_vision
@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm:no_such_network", "ValueError: timm has no model no_such_network"),
        ("torchvision.models:ResNet", "ValueError: torchvision has no model ResNet for images"),
    ],
)
def test_networks_that_a_package_does_not_have(name: str, reason: str) -> None:
    (found,) = published([name])
    assert found.error == reason


@pytest.mark.vision
@needs_vision
@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize(
    ("name", "inputs", "arguments"),
    [
        ("torchvision.models:resnet18", (1, 32, 32), {}),
        ("torchvision.models:mobilenet_v3_small", (3, 32, 32), {}),
        ("timm:resnet10t", (2, 32, 32), {"args.drop_path_rate": 0.2}),
        ("timm:vit_tiny_patch16_224", (3, 32, 32), {}),
    ],
)
def test_networks_of_packages_are_built_for_any_images(
    name: str, inputs: tuple[int, ...], arguments: dict[str, Any]
) -> None:
    (found,) = published([name])
    assert found.error is None
    recipe = Recipe({"family": "module", "module": name, "init": "own", **arguments})
    network = build(Shape.of(recipe.effective(), inputs, 4))
    initialize(network, recipe, 0)
    assert isinstance(network, nn.Module)
    assert outputs(network.eval(), torch.zeros(2, *inputs)).shape == (2, 4)

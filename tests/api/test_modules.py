"""Studies of modules: checked against what workers have published; the API imports none of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.settings import Settings
from service.spec import StudySpec
from service.spec.modules import Argument, ModuleSchema
from service.store import Store

NET = "mynets.resnet:Net"
ARGUMENTS = {
    "width": Argument(kind="int", default=32),
    "slope": Argument(kind="float", default=0.1),
    "gated": Argument(kind="bool", default=False),
    "norm": Argument(kind="word", choices=("batch", "group"), default="batch"),
    "path": Argument(kind="word", default="a"),
}


@pytest.fixture(autouse=True)
def _published(store: Store) -> None:
    schemas = [
        ModuleSchema(name=NET, about="A network.", arguments=ARGUMENTS),
        ModuleSchema(name="mynets.resnet:Broken", error="ImportError: a package that nobody has"),
        ModuleSchema(name="mynets.resnet:Needs", arguments={"width": Argument(kind="int", required=True)}),
    ]
    worker_id = store.workers.register(name="w", host="h", pid=1, device="cpu")
    store.modules.publish(worker_id, [schema.model_dump(mode="json") for schema in schemas])


def submit(client: TestClient, model: dict[str, Any], **parts: Any) -> Any:
    return client.post("/v1/studies", json={"data": {"dataset": "digits"}, "model": model, **parts})


def test_modules_are_listed_with_their_arguments(client: TestClient) -> None:
    found = {each["name"]: each for each in client.get("/v1/modules").json()}
    assert found[NET]["about"] == "A network."
    norm = {"kind": "word", "choices": ["batch", "group"], "default": "batch", "required": False}
    assert found[NET]["arguments"]["norm"] == norm
    assert found["mynets.resnet:Broken"]["error"] == "ImportError: a package that nobody has"


def test_arguments_are_settings_like_any_other(client: TestClient, store: Store) -> None:
    arguments = {"width": {"low": 8, "high": 64, "log": True}, "norm": ["batch", "group"], "slope": {"low": 0, "high": 1}}
    answer = submit(client, {"module": NET, "args": {**arguments, "gated": True}, "dropout_after": ["blocks.*"]})
    assert answer.status_code == 201, answer.text
    spec = StudySpec.model_validate(store.studies.get(answer.json()["id"]).spec)
    assert {"args.width", "args.norm", "args.slope"} <= set(spec.searched)
    assert {name: spec.settings[f"args.{name}"].kind for name in ("width", "slope")} == {"width": "int", "slope": "float"}
    assert spec.model.layout == "image"
    assert spec.space.preset == "modules"


BAD: list[tuple[dict[str, Any], str, Any]] = [
    ({"module": "mynets.resnet:Nett"}, "model.module", "mynets.resnet:Nett"),
    ({"module": "mynets.resnet:Broken"}, "model.module", "mynets.resnet:Broken"),
    ({"module": "mynets"}, "model.module", "mynets"),
    ({"module": "mynets.resnet:Needs"}, "model.args.width", None),
    ({"module": NET, "args": {"widht": 3}}, "model.args.widht", "widht"),
    ({"module": NET, "args": {"width": 3.5}}, "model.args.width", 3.5),
    ({"module": NET, "args": {"width": True}}, "model.args.width", True),
    ({"module": NET, "args": {"width": {"low": 0.5, "high": 2}}}, "model.args.width", [0.5, 2.0]),
    ({"module": NET, "args": {"gated": 1}}, "model.args.gated", 1),
    ({"module": NET, "args": {"gated": {"low": 0, "high": 1}}}, "model.args.gated", [0.0, 1.0]),
    ({"module": NET, "args": {"norm": ["batch", "layer"]}}, "model.args.norm", "layer"),
    ({"module": NET, "args": {"path": 3}}, "model.args.path", 3),
    ({"module": NET, "args": {"width": {"low": 1, "high": 2, "off": True}}}, "model.args.width.off", True),
    ({"module": NET, "args": {"a b": 1}}, "model.args.a b", "a b"),
    ({"module": NET, "reads": "sequence"}, "model.reads", "sequence"),
    ({"module": NET, "width": 3}, "model.width", 3),
    ({"module": NET, "family": "cnn"}, "model.family", "cnn"),
    ({"family": "module"}, "model.module", None),
    ({"args": {"width": 3}}, "model.args", "['width']"),
    ({"module": NET, "dropout_after": ["a;b"]}, "model.dropout_after.0", "a;b"),
]


@pytest.mark.parametrize(("model", "field", "value"), BAD, ids=str)
def test_what_does_not_fit_is_refused_with_field_and_value(
    client: TestClient, model: dict[str, Any], field: str, value: Any
) -> None:
    answer = submit(client, model)
    assert answer.status_code == 422, answer.text
    (issue,) = answer.json()["errors"]
    assert (issue["field"], issue["value"]) == (field, value)


@pytest.mark.parametrize(
    ("space", "field"),
    [
        ({"normalization": ["none", "batch"]}, "space.normalization"),
        ({"dropout": {"per_layer": [0.1, 0.2]}}, "space.dropout"),
        ({"head_dropout": 0.1}, "space.head_dropout"),
        ({"skip_connections": True}, "space.skip_connections"),
    ],
)
def test_settings_of_our_networks_are_refused(client: TestClient, space: dict[str, Any], field: str) -> None:
    answer = submit(client, {"module": NET}, space=space)
    assert answer.status_code == 422
    assert [issue["field"] for issue in answer.json()["errors"]] == [field]


def test_our_networks_have_no_settings_of_modules(client: TestClient) -> None:
    for space in ({"init": "own"}, {"replace_normalization": "batch"}):
        answer = client.post("/v1/studies", json={"data": {"dataset": "wine"}, "space": space})
        assert answer.status_code == 422, answer.text


def test_dropout_per_layer_needs_their_number(client: TestClient) -> None:
    answer = submit(client, {"module": NET, "dropout_layers": 2}, space={"dropout": {"per_layer": [0.1, 0.2]}})
    assert answer.status_code == 201, answer.text


def test_augmentation_is_for_images(client: TestClient, tmp_path: Path) -> None:
    space = {"rotation": {"low": 2, "high": 20}}
    assert submit(client, {"module": NET}, space=space).status_code == 201
    refused = submit(client, {"module": NET, "reads": "flat"}, space=space)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "space.rotation"


def test_series_come_as_series_unless_asked_otherwise(client: TestClient, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "series.npz"
    np.savez(path, x=np.zeros((60, 5, 3), dtype=np.float32), y=np.arange(60) % 3)
    uploaded = client.post("/v1/datasets", files={"file": ("series.npz", path.read_bytes())}).json()["id"]
    for asked, layout in ((None, "sequence"), ("flat", "flat"), ("image", "image")):
        answer = submit(client, {"module": NET, **({"reads": asked} if asked else {})}, data={"dataset": uploaded})
        assert answer.status_code == 201, answer.text
        assert StudySpec.model_validate(store.studies.get(answer.json()["id"]).spec).model.layout == layout


def test_without_any_module_the_setting_of_the_operator_is_named(client: TestClient, store: Store) -> None:
    (worker,) = store.workers.list()
    store.modules.publish(worker.id, [])
    (issue,) = submit(client, {"module": NET}).json()["errors"]
    assert issue["allowed"] == ["none: no worker has published any (see REGSEARCH_MODULES)"]


def weights_file(path: Path) -> Path:
    header = b'{"fc.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    roots = tmp_path / "weights"
    roots.mkdir()
    return Settings(home=tmp_path / "home", weights_roots=(roots,))


def test_a_study_is_bound_to_its_file_of_weights(client: TestClient, store: Store, tmp_path: Path) -> None:
    path = weights_file(tmp_path / "weights" / "net.safetensors")
    model = {"module": NET, "weights": str(path), "freeze": ["stem"]}
    answer = submit(client, model, space={"l2_sp": {"low": 1e-3, "high": 1, "log": True}})
    assert answer.status_code == 201, answer.text
    spec = StudySpec.model_validate(store.studies.get(answer.json()["id"]).spec)
    assert spec.model.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "l2_sp" in spec.searched
    other = submit(client, {**model, "weights_sha256": "0" * 64})
    assert [issue["field"] for issue in other.json()["errors"]] == ["model.weights_sha256"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, (2).to_bytes(8, "little") + b"{}", (5).to_bytes(8, "little") + b"[1,2]"]
)
def test_a_file_that_is_none_of_weights_is_refused(client: TestClient, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights" / "net.safetensors"
    path.write_bytes(content)
    (issue,) = submit(client, {"module": NET, "weights": str(path)}).json()["errors"]
    assert (issue["field"], issue["value"]) == ("model.weights", str(path))
    assert issue["message"].startswith("is no safetensors file: ")


def test_weights_elsewhere_are_not_read(client: TestClient, tmp_path: Path) -> None:
    weights_file(tmp_path / "secret.safetensors")
    (tmp_path / "weights" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    for name in ("secret.safetensors", "weights/../secret.safetensors", "weights/link.safetensors", "weights/none"):
        (issue,) = submit(client, {"module": NET, "weights": str(tmp_path / name)}).json()["errors"]
        assert issue["message"] == "is not a file under an allowed directory"
        assert issue["allowed"] == str(tmp_path / "weights")


def test_what_needs_weights_to_begin_with(client: TestClient) -> None:
    for model, space, field in (
        ({"module": NET, "fine_tune": "all"}, {}, "model.fine_tune"),
        ({"module": NET, "weights_sha256": "0" * 64}, {}, "model.weights_sha256"),
        ({"module": NET}, {"l2_sp": 0.1}, "space.l2_sp"),
    ):
        answer = submit(client, model, space=space)
        assert [issue["field"] for issue in answer.json()["errors"]] == [field]

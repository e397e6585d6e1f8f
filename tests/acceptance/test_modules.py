"""Networks of a package that users have installed beside the service: searched, delivered, predicted with, over REST."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mynets.good
import numpy as np
import onnxruntime
import pytest
from safetensors.torch import load, save_file
from sklearn.datasets import load_digits

from service.client.connection import HttpClient, Refused
from tests.acceptance.conftest import Service, wait_for

GOOD = ("ResNet", "Encoder")
RESNET = "mynets.good:ResNet"
BAD = ("Raises", "WrongShape", "NotANumber", "Hungry", "Huge", "NeedsSizes")
NAMES = [*(f"mynets.good:{name}" for name in GOOD), *(f"mynets.bad:{name}" for name in BAD), "mynets.broken:Net"]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose operator allows a package that is nowhere near it."""
    elsewhere = tmp_path_factory.mktemp("site")
    shutil.copytree(Path(mynets.__file__).parent, elsewhere / "mynets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(elsewhere), os.environ.get("PYTHONPATH", "")]))
        roots = json.dumps([str(tmp_path_factory.getbasetemp())])
        running = Service(tmp_path_factory.mktemp("service") / "home", modules=json.dumps(NAMES), weights_roots=roots)
        wait_for(lambda: len(running.client.get("/v1/modules")) == len(NAMES))
        yield running
        running.stop()


def submitted(client: HttpClient, **parts: Any) -> int:
    budget = {"trials": 6, "epochs": 6, "finalists": 2, "seeds": 2, "max_failed_trials": 3}
    study: dict[str, Any] = client.post("/v1/studies", {"budget": budget, **parts})
    return int(study["id"])


def ended(client: HttpClient, study_id: int) -> dict[str, Any]:
    wait_for(lambda: client.get(f"/v1/studies/{study_id}")["state"] in ("finished", "failed"))
    found: dict[str, Any] = client.get(f"/v1/studies/{study_id}")
    return found


def test_a_residual_network_of_theirs(modules: Service, tmp_path: Path) -> None:
    client = modules.client
    study = submitted(
        client,
        data={"dataset": "digits"},
        model={"module": "mynets.good:ResNet", "args": {"width": [4, 8], "norm": ["batch", "group"]}},
        space={"shift": {"low": 0.02, "high": 0.1, "off": True}, "lr": {"low": 0.01, "high": 0.05, "log": True}},
    )
    assert ended(client, study)["state"] == "finished"
    result = client.get(f"/v1/studies/{study}/result")
    assert result["winner"]["recipe"]["module"] == "mynets.good:ResNet"
    assert result["winner"]["recipe"]["args.norm"] in ("batch", "group")
    assert result["provenance"]["plan"]["separate"] == "convolutions are fastest one network at a time on a CPU"
    digits = load_digits()
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=digits.images.astype(np.float32))
    refused = modules.run("predict", str(study), str(rows))
    assert "--module mynets.good:ResNet uses yours" in refused.stderr
    done = modules.run("predict", str(study), str(rows), "--module", "mynets.good:ResNet", "--out", str(tmp_path / "p.csv"))
    assert done.returncode == 0, done.stderr
    predicted = [line.split(",")[0] for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    assert np.mean(np.array(predicted) == digits.target.astype(str)) > 0.5  # of ten classes
    onnx = client.download(f"/v1/studies/{study}/model", format="onnx", patience=120.0)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (labels, _) = session.run(None, {"images": digits.images[..., None].astype(np.float32)})
    assert np.mean(labels == np.array(predicted)) > 0.99


def test_a_transformer_of_theirs(modules: Service, tmp_path: Path) -> None:
    """Of series whose class is the sign of a channel's mean; its lanes are stacked."""
    client = modules.client
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6, 3)).astype(np.float32)
    y = (x[:, :, 1].mean(1) > 0).astype(int)
    path = tmp_path / "series.npz"
    np.savez(path, x=x, y=y)
    assert modules.run("upload", str(path)).returncode == 0
    dataset = client.get("/v1/datasets")[0]["id"]
    model = {"module": "mynets.good:Encoder", "args": {"width": 8, "layers": [1, 2]}, "dropout_after": ["embed"]}
    study = submitted(client, data={"dataset": dataset}, model=model, space={"replace_normalization": ["own", "batch"]})
    assert ended(client, study)["state"] == "finished"
    result = client.get(f"/v1/studies/{study}/result")
    assert result["provenance"]["plan"]["separate"] is None
    assert result["winner"]["recipe"]["dropout_after"] == "embed"
    with zipfile.ZipFile(io.BytesIO(client.download(f"/v1/studies/{study}/model"))) as archive:
        about = json.loads(archive.read("recipe.json"))
        assert about["module"]["name"] == "mynets.good:Encoder"
        assert not [name for name in archive.namelist() if "mynets" in name]
    done = modules.run("predict", str(study), str(path), "--module", "mynets.good:Encoder")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 301


def test_a_network_of_theirs_is_fine_tuned_from_a_file(modules: Service, tmp_path: Path) -> None:
    """Of the ten classes that it has learnt, three are to be told apart."""
    theirs = mynets.good.ResNet((1, 8, 8), 10)
    path = tmp_path / "resnet.safetensors"
    save_file({name: value for name, value in theirs.state_dict().items() if value.ndim}, path)
    digits = load_digits()
    few = digits.target < 3
    rows = tmp_path / "few.npz"
    np.savez(rows, x=digits.images[few].astype(np.float32), y=digits.target[few])
    assert modules.run("upload", str(rows)).returncode == 0
    client = modules.client
    study = submitted(
        client,
        data={"dataset": client.get("/v1/datasets")[0]["id"]},
        model={"module": "mynets.good:ResNet", "reads": "image", "weights": str(path), "freeze": ["stem"]},
        space={"l2_sp": {"low": 1e-3, "high": 0.1, "log": True}, "lr": {"low": 0.01, "high": 0.05, "log": True}},
    )
    assert ended(client, study)["state"] == "finished"
    result = client.get(f"/v1/studies/{study}/result")
    assert "l2_sp" in result["winner"]["regularizers"]
    assert "trained from scratch" in {each["name"] for each in result["others"]}
    with zipfile.ZipFile(io.BytesIO(client.download(f"/v1/studies/{study}/model"))) as archive:
        delivered = load(archive.read("weights.safetensors"))
    for name, value in delivered.items():
        if name.endswith("net.stem.weight"):
            np.testing.assert_array_equal(value.numpy(), theirs.stem.weight.detach().numpy())
    path.unlink()
    again = client.post(f"/v1/studies/{study}/replay")
    assert ended(client, again["id"])["reason"].startswith("model.weights: is not a file under an allowed directory")


def test_a_network_of_theirs_is_fine_tuned_from_an_earlier_study(modules: Service, tmp_path: Path) -> None:
    """First on the same rows, where all of it stays with a rate of nearly zero; then on three of the ten classes."""
    client = modules.client
    still = {"lr": 1e-7, "weight_decay": "off", "dropout": "off"}
    named = {"module": RESNET, "args": {"width": 4, "norm": ["batch", "group"]}}
    first = submitted(client, data={"dataset": "digits"}, model=named, space={"lr": 0.02}, deliver="off", seed=3)
    assert ended(client, first)["state"] == "finished"
    norm = client.get(f"/v1/studies/{first}/result")["winner"]["recipe"].get("args.norm")
    other = "group" if norm == "batch" else "batch"
    unfit: list[tuple[dict[str, Any], str, Any]] = [
        ({"module": RESNET, "args": {"norm": other}}, "model.args.norm", norm),
        ({"module": RESNET, "args": {"width": [4, 8]}}, "model.args.width", 4),
        ({"module": "mynets.good:Encoder"}, "model.module", RESNET),
        ({"module": RESNET, "reads": "flat"}, "model.reads", "image"),
        ({"family": "cnn"}, "model.family", "module"),
    ]
    for model, field, allowed in unfit:
        with pytest.raises(Refused) as refused:
            submitted(client, data={"dataset": "digits"}, model={"start_from": first, **model}, deliver="off", seed=3)
        assert (field, allowed) in [(issue["field"], issue["allowed"]) for issue in refused.value.errors]
    again = submitted(client, data={"dataset": "digits"}, model={"start_from": first}, space=still, deliver="off", seed=3)
    assert ended(client, again)["state"] == "finished"
    was, now = (delivered(client, study) for study in (first, again))
    assert now.keys() == was.keys()
    for name in was:
        if "running" not in name:
            np.testing.assert_allclose(now[name], was[name], atol=1e-4, err_msg=name)

    digits = load_digits()
    few = digits.target < 3
    rows = tmp_path / "three.npz"
    np.savez(rows, x=digits.images[few].astype(np.float32), y=digits.target[few])
    assert modules.run("upload", str(rows)).returncode == 0
    dataset = next(each["id"] for each in client.get("/v1/datasets") if each["name"] == "three.npz")
    tuned = {"module": RESNET, "start_from": first, "freeze": ["stem"], "layer_lr_decay": [0.6, 0.9], "fine_tune": "all"}
    space = {"l2_sp": {"low": 1e-3, "high": 0.1, "log": True}, "lr": 0.02}
    study = submitted(client, data={"dataset": dataset}, model=tuned, space=space)
    end = ended(client, study)
    assert end["state"] == "finished", end["reason"]
    result = client.get(f"/v1/studies/{study}/result")
    assert "l2_sp" in result["winner"]["regularizers"]
    assert "trained from scratch" in {each["name"] for each in result["others"]}
    found = delivered(client, study)
    assert found["net.fc.weight"].shape == (3, 4)
    np.testing.assert_array_equal(found["net.stem.weight"], was["net.stem.weight"])
    assert np.abs(found["net.conv.weight"] - was["net.conv.weight"]).max() > 0


def delivered(client: HttpClient, study: int) -> dict[str, np.ndarray[Any, Any]]:
    """The weights of the first network in the archive, by the names of one network alone."""
    with zipfile.ZipFile(io.BytesIO(client.download(f"/v1/studies/{study}/model"))) as archive:
        weights = load(archive.read("weights.safetensors"))
    return {name.removeprefix("members.0."): value.numpy() for name, value in weights.items() if "members.1" not in name}


def test_bad_modules_end_their_study_with_their_own_error(modules: Service) -> None:
    client, workers = modules.client, modules.worker_pids()
    sentences = {
        "Raises": "mynets.bad:Raises raised in forward: ValueError: these rows are not mine",
        "WrongShape": "mynets.bad:WrongShape returns (16, 2) for 16 examples, not (16, 3) (rows, outputs)",
        "Huge": "mynets.bad:Huge has 25,6",
        "Hungry": "mynets.bad:Hungry needs more memory than this worker has",
    }
    for name, sentence in sentences.items():
        study = submitted(client, data={"dataset": "wine"}, model={"module": f"mynets.bad:{name}"})
        found = ended(client, study)
        assert found["state"] == "failed"
        assert found["reason"].startswith(sentence)
    study = submitted(client, data={"dataset": "wine"}, model={"module": "mynets.bad:NotANumber"})
    assert ended(client, study)["state"] == "failed"
    trials = client.get(f"/v1/studies/{study}/trials")["trials"]
    assert {each["stop_reason"] for each in trials} == {"loss is not finite"}
    assert modules.worker_pids() == workers
    study = submitted(client, data={"dataset": "wine"}, model={"width": 8, "depth": 1})
    assert ended(client, study)["state"] == "finished"


def test_modules_that_can_not_be_used_are_refused_at_submit(modules: Service) -> None:
    errors = {each["name"]: each["error"] for each in modules.client.get("/v1/modules") if each["error"]}
    assert errors == {
        "mynets.bad:NeedsSizes": "needs the argument sizes, which is no number, truth value or text; give it a default",
        "mynets.broken:Net": "ImportError: a package that nobody has",
    }

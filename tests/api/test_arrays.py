"""Images and series through the API: accepted with a family that fits, refused with one that does not, searched."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.settings import Settings
from service.store import Store
from workers.liveness import Stop
from workers.worker import Worker

ROWS = 40


def npz(shape: tuple[int, ...], **more: Any) -> bytes:
    y = np.arange(ROWS) % 2
    x = np.zeros((ROWS, *shape), dtype=np.uint8) + (100 * y).reshape(-1, *(1 for _ in shape)).astype(np.uint8)
    x.reshape(ROWS, -1)[:, 0] = np.arange(ROWS)
    file = io.BytesIO()
    np.savez_compressed(file, x=x, y=y, **more)
    return file.getvalue()


def uploaded(client: TestClient, content: bytes, name: str = "x.npz") -> str:
    answer = client.post("/v1/datasets", files={"file": (name, content)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def submitted(client: TestClient, data: dict[str, Any], model: dict[str, Any], **parts: Any) -> Any:
    return client.post("/v1/studies", json={"data": data, "model": model, **parts})


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((4,), {"mlp"}), ((6, 5), {"mlp", "cnn", "sequence"}), ((6, 5, 3), {"mlp", "cnn"}), ((3, 6, 5), {"mlp", "cnn"})],
)
def test_a_family_takes_the_shapes_that_it_can_read(client: TestClient, shape: tuple[int, ...], fits: set[str]) -> None:
    dataset = uploaded(client, npz(shape))
    for family in ("mlp", "cnn", "sequence"):
        answer = submitted(client, {"dataset": dataset}, {"family": family})
        if family in fits:
            assert answer.status_code == 201, answer.text
            advised = any("keeps the shape" in warning for warning in answer.json()["warnings"])
            assert advised == (family == "mlp" and len(shape) > 1)
        else:
            (error,) = answer.json()["errors"]
            assert answer.status_code == 422
            assert (error["field"], error["value"], set(error["allowed"])) == ("model.family", family, fits)
            assert str(shape) in error["message"]


def test_tables_are_neither_images_nor_series(client: TestClient) -> None:
    assert submitted(client, {"dataset": "digits"}, {"family": "cnn"}).status_code == 201
    for name, family in (("digits", "sequence"), ("wine", "cnn")):
        answer = submitted(client, {"dataset": name}, {"family": family})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "model.family"
    answer = submitted(client, {"dataset": "digits", "drop": ["x0"]}, {"family": "cnn"})
    assert answer.json()["errors"][0]["field"] == "data.drop"


class UntilFinished(Stop):
    """Stops a worker when there is nothing more to do."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def __call__(self) -> bool:
        return all(study.state in ("finished", "failed") for study in self._store.studies.list()[0])


@pytest.mark.parametrize(
    ("family", "shape", "more"),
    [
        ("cnn", (3, 6, 5), {"downsampling": "max"}),
        ("sequence", (6, 2), {"cell": "gru"}),
        ("sequence", (6, 2), {"cell": "transformer", "heads": 2}),
    ],
)
def test_an_upload_is_searched_to_its_answer(
    client: TestClient, store: Store, settings: Settings, family: str, shape: tuple[int, ...], more: dict[str, Any]
) -> None:
    lengths = {"lengths": np.arange(ROWS) % 6 + 1} if family == "sequence" else {}
    dataset = uploaded(client, npz(shape, **lengths))
    answer = submitted(
        client,
        {"dataset": dataset},
        {"family": family, "width": 4, "depth": 1, **more},
        space={"preset": "minimal", "normalization": "layer", "lr": 0.01, "head_dropout": [0.1, "off"]},
        budget={"trials": 2, "epochs": 2},
    )
    assert answer.status_code == 201, answer.text
    Worker(store, settings, "cpu", UntilFinished(store)).run()
    study = client.get("/v1/studies/1").json()
    assert study["state"] == "finished", study["reason"]
    winner = client.get("/v1/studies/1/result").json()["winner"]
    assert winner["recipe"]["family"] == family
    assert winner["test"]["n"] == 8

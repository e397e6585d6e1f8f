"""Nothing in common but a database and an S3 server: the API and each worker have homes and caches of their own."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest

from tests.acceptance.conftest import Service, wait_for
from tests.servers import S3

SETTINGS = [
    {"dropout": rate, "weight_decay": decay, "lr": lr} for rate in (0.1, 0.4) for decay in (0.01, 1.0) for lr in (3e-4, 3e-3)
]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An S3 server that the processes of this test find by their environment."""
    server = S3()
    server.fill("shared", {})
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


def submitted(service: Service, path: Path) -> int:
    """A study whose trials come out the same whoever trains them: named settings, no pruning, no patience."""
    data = service.client.upload(path, None)
    spec = {
        "data": {"dataset": data["id"], "target": "y"},
        "task": "regression",
        "model": {"widths": [16]},
        "space": {
            "preset": "off",
            "dropout": {"low": 0.0, "high": 0.5},
            "weight_decay": {"low": 0.001, "high": 2.0, "log": True},
            "lr": {"low": 1e-4, "high": 1e-2, "log": True},
        },
        "enqueue": SETTINGS,
        "pruner": "none",
        "early_stopping": "off",
        "validation": {"method": "holdout"},
        "budget": {
            "trials": len(SETTINGS),
            "epochs": 150,
            "finalists": 2,
            "seeds": 2,
            "max_retries": 50,
            "max_lost_workers": 50,
        },
        "deliver": "off",
        "seed": 3,
    }
    made: int = service.client.post("/v1/studies", spec)["id"]
    return made


class Host:
    """A worker on a machine of its own: nothing of it is anybody else's."""

    def __init__(self, service: Service, place: Path) -> None:
        own = {"REGSEARCH_HOME": str(place / "home"), "REGSEARCH_CACHE": str(place / "cache")}
        place.mkdir()
        with (place / "log").open("wb") as log:
            command = [sys.executable, "-m", "workers", "--threads", "1"]
            self.process = subprocess.Popen(command, env=service.environment | own, stdout=log, stderr=log)

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


def answer(service: Service, study: int) -> tuple[dict[str, Any], list[float]]:
    """The result, and the values of all trials."""
    wait_for(lambda: service.client.get(f"/v1/studies/{study}")["state"] in ("finished", "failed"))
    assert service.client.get(f"/v1/studies/{study}")["reason"] is None
    trials = service.client.get(f"/v1/studies/{study}/trials", limit=100)["trials"]
    assert [trial["number"] for trial in trials] == list(range(len(SETTINGS)))
    result: dict[str, Any] = service.client.get(f"/v1/studies/{study}/result")
    return result, [trial["value"] for trial in trials]


@pytest.mark.costly
def test_without_a_common_folder_the_answer_is_the_same(s3: S3, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(600, 6))
    path = tmp_path / "rows.csv"
    pd.DataFrame(x, columns=list("abcdef")).assign(y=x[:, 0] - x[:, 1] ** 2 + generator.normal(size=600)).to_csv(path)
    together = Service(tmp_path / "together")
    expected, values = answer(together, submitted(together, path))
    together.stop()

    client = boto3.client("s3")

    def names() -> list[str]:
        return [each["Key"] for each in client.list_objects_v2(Bucket="shared").get("Contents", [])]

    database = f"sqlite:///{tmp_path}/api/regsearch.db"
    apart = Service(tmp_path / "api", workers=0, objects="s3://shared/studies", lease_seconds="5", db_url=database)
    study = submitted(apart, path)

    def now() -> dict[str, Any]:
        found: dict[str, Any] = apart.client.get(f"/v1/studies/{study}")
        return found

    first = Host(apart, tmp_path / "first")
    wait_for(lambda: now()["trials"]["running"] > 0 and now()["epochs"] > 0)
    apart.client.post(f"/v1/studies/{study}/pause")
    wait_for(lambda: any("checkpoints/trial-" in name for name in names()))
    wait_for(lambda: now()["trials"]["running"] == 0)
    first.end(signal.SIGKILL)  # its checkpoints are found by others, which don't have its home
    trained = now()["epochs"]
    apart.client.post(f"/v1/studies/{study}/resume")
    second = Host(apart, tmp_path / "second")
    wait_for(lambda: now()["epochs"] > trained)
    second.end(signal.SIGKILL)  # in whatever it was about to do
    third = Host(apart, tmp_path / "third")
    found, found_values = answer(apart, study)
    archive = apart.client.download(f"/v1/studies/{study}/model")
    assert not any("checkpoints/" in name for name in names())
    third.end(signal.SIGKILL)
    (model,) = (name for name in names() if name.startswith("studies/models/") and name.endswith(".zip"))
    assert client.get_object(Bucket="shared", Key=model)["Body"].read() == archive
    assert found["model"]["sha256"] == hashlib.sha256(archive).hexdigest()
    assert not any((apart.home / folder).exists() for folder in ("datasets", "models"))
    apart.stop()
    client.close()
    np.testing.assert_allclose(found_values, values, rtol=1e-3)
    assert found["winner"]["recipe"] == expected["winner"]["recipe"]
    assert found["winner"]["test"]["mean"] == pytest.approx(expected["winner"]["test"]["mean"], rel=1e-2)

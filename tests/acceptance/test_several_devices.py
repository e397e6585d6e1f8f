"""Networks that are trained by several processes, over REST: the same answer, and nothing is lost with one of them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mynets
import numpy as np
import psutil
import pytest

from service.client.connection import HttpClient, Refused
from service.store import open_store
from tests.acceptance.conftest import Service, wait_for
from tests.acceptance.launched import ENDLESS, broken, end

MODULE = "mynets.good:Perceptron"
SPACE = {"preset": "off", "lr": {"low": 0.005, "high": 0.02, "log": True}, "dropout": "off", "weight_decay": 0.01}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose only worker has two devices, which on this machine are processes."""
    with pytest.MonkeyPatch.context() as patch:
        theirs = str(Path(mynets.__file__).parents[1])
        patch.setenv("PYTHONPATH", os.pathsep.join([theirs, os.environ.get("PYTHONPATH", "")]))
        home = tmp_path_factory.mktemp("service") / "home"
        running = Service(home, modules=json.dumps([MODULE]), devices_per_trial="2")
        wait_for(lambda: alive(running.client) == [2])
        yield running
        running.stop()


def alive(client: HttpClient) -> list[int]:
    """The devices of each living worker."""
    return [each["devices"] for each in client.get("/v1/workers") if each["state"] == "alive"]


def processes(service: Service) -> tuple[psutil.Process, psutil.Process]:
    """The worker and its follower."""
    own = [psutil.Process(pid) for pid in service.worker_pids()]
    (follower,) = [each for each in own if each.environ().get("RANK") == "1"]
    (worker,) = [each for each in own if each != follower]
    return worker, follower


def training(client: HttpClient, study: int) -> set[int]:
    """Process ids of the living workers that have trained epochs of a study."""
    workers = [each for each in client.get("/v1/workers") if each["stats"].get("study") == study]
    return {each["pid"] for each in workers if each["state"] == "alive" and each["stats"].get("epochs_per_second", 0) > 0}


def finished(client: HttpClient, devices: int) -> tuple[dict[str, Any], list[float]]:
    """The result of a study, and the validation losses of its first trial."""
    study = client.post(
        "/v1/studies",
        {
            "data": {"dataset": "wine"},
            "model": {"module": MODULE, "devices": devices},
            "space": SPACE,
            "validation": {"method": "holdout"},
            "pruner": {"name": "successive_halving", "min_epochs": 2},
            "budget": {"trials": 6, "epochs": 8, "finalists": 2, "seeds": 2},
        },
    )["id"]
    wait_for(lambda: client.get(f"/v1/studies/{study}")["state"] in ("finished", "failed"))
    trial = client.get(f"/v1/studies/{study}/trials/0")
    return client.get(f"/v1/studies/{study}/result"), trial["curve"]["log_loss"]


def test_a_study_on_two_processes_has_the_answer_of_one(several: Service) -> None:
    client = several.client
    with pytest.raises(Refused) as refused:
        client.post("/v1/studies", {"data": {"dataset": "wine"}, "model": {"devices": 3}})
    assert refused.value.status == 422
    assert [each["field"] for each in refused.value.errors] == ["model.devices"]
    (result, curve), (_, expected) = finished(client, 2), finished(client, 1)
    assert result["provenance"]["plan"]["devices"] == 2
    assert result["model"]["refit"]["rows"] == 178
    np.testing.assert_allclose(curve, expected[: len(curve)], rtol=1e-3)
    assert len(curve) > 1


def test_nothing_is_lost_with_a_process(several: Service) -> None:
    """Without a follower its worker gives the trial back in order; without rank 0 the follower ends, and the lease."""
    client, store = several.client, open_store(f"sqlite:///{several.home / 'regsearch.db'}")
    study = client.post("/v1/studies", {**ENDLESS, "model": {"widths": [16], "devices": 2}})["id"]
    for rank, lost in ((1, 0), (0, 1)):
        wait_for(lambda: bool(training(client, study)))
        worker, follower = processes(several)
        assert training(client, study) == {worker.pid}
        (worker, follower)[rank].send_signal(signal.SIGKILL)
        wait_for(partial(_gone, (worker, follower)))
        wait_for(partial(_another, client, study, worker.pid))
        assert store.leases.lost() == lost
    trials = end(client, study)
    assert {each["state"] for each in trials} <= {"complete", "pruned"}
    assert broken(several.home) == []
    store.close()


def _gone(processes: tuple[psutil.Process, ...]) -> bool:
    return not any(each.is_running() for each in processes)


def _another(client: HttpClient, study: int, pid: int) -> bool:
    return bool(training(client, study) - {pid})

"""Workers on a real Ray cluster: from none to the most, a node lost in the middle, and back to none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Service, wait_for
from tests.acceptance.launched import ENDLESS, broken, busy, end
from tests.ray_cluster import RayNodes

SMALL = {
    "data": {"dataset": "wine"},
    "model": {"widths": [8], "devices": 2},
    "space": {"preset": "off", "lr": [0.005, 0.02]},
    "validation": {"method": "holdout"},
    "budget": {"trials": 2, "epochs": 2, "finalists": 1, "seeds": 2},
}
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, in this process: the launcher is one of its own


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    started = RayNodes(2, cpus=1)
    yield started
    started.stop()


def test_studies_survive_the_loss_of_a_node_and_the_cluster_is_empty_in_the_end(tmp_path: Path, nodes: RayNodes) -> None:
    service = Service(tmp_path / "home", workers=0, lease_seconds="2")
    client = service.client
    ids = [client.post("/v1/studies", ENDLESS | {"seed": seed})["id"] for seed in (1, 2)]
    queue = client.get("/v1/queue", trials_per_worker=4)
    assert queue == {"studies": 2, "trials": 16, "workers": 4, "larger": 0, "devices": 0}
    options = ["--max", "2", "--idle-seconds", "1", "--poll-seconds", "0.5", "--until-empty"]
    launcher = service.start("launch", "ray", "--address", nodes.address, *options)

    def workers() -> list[int]:
        """Their number on each node."""
        return [len(each) for each in nodes.workers()]

    def all_train() -> bool:
        pids = {each.pid for node in nodes.workers() for each in node}
        return len(pids) == 2 and pids <= busy(client)

    try:
        wait_for(all_train)
        assert workers() == [1, 1]
        nodes.lose(0)
        assert workers() == [1]
        nodes.add()  # as an autoscaler would
        wait_for(all_train)
        assert workers() == [1, 1]
        for study in ids:
            end(client, study)
        assert launcher.wait(timeout=120) == 0
        assert workers() == [0, 0]
        log = service.output.read_text()
        for line in ("wanted 2, running 0, pending 0", "a worker was lost with its node", "wanted 0, running 0, pending 0"):
            assert line in log
    finally:
        launcher.kill()
        launcher.wait()
        service.stop()
    assert broken(service.home) == []


def test_a_study_of_two_devices_gets_a_worker_that_has_them(tmp_path: Path) -> None:
    service = Service(tmp_path / "home", workers=0)
    client, cluster = service.client, RayNodes(1, cpus=2)
    study = client.post("/v1/studies", SMALL)["id"]
    queue = {devices: client.get("/v1/queue", devices_per_trial=devices) for devices in (1, 2)}
    assert queue[1] == {"studies": 0, "trials": 0, "workers": 0, "larger": 1, "devices": 2}
    assert queue[2] == {"studies": 1, "trials": 2, "workers": 1, "larger": 0, "devices": 0}
    common = ["launch", "ray", "--address", cluster.address, "--poll-seconds", "0.5", "--idle-seconds", "1", "--until-empty"]
    try:
        assert service.start(*common).wait(timeout=120) == 0
        assert "they want up to 2 devices, and these have 1" in service.output.read_text()
        assert client.get("/v1/workers") == []
        assert service.start(*common, "--cpus", "2", "--devices-per-trial", "2").wait(timeout=300) == 0
        assert client.get(f"/v1/studies/{study}")["state"] == "finished"
        assert [each["devices"] for each in client.get("/v1/workers")] == [2]
    finally:
        service.stop()
        cluster.stop()

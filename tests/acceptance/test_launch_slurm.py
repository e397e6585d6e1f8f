"""Workers as jobs of a real Slurm: job arrays by the queue, a job near its time limit, a launcher that is stopped."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.objects.local import LocalObjects
from tests.acceptance.conftest import Service, wait_for
from tests.acceptance.launched import ENDLESS, TRIALS, broken, busy, end
from tests.slurm import Slurm, is_installed
from workers.searching.checkpoints import Checkpoints


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    if not is_installed():
        pytest.skip("no Slurm on this machine (Debian's slurm-wlm)")
    running = Slurm(cpus=2)
    yield running
    running.stop()


def test_jobs_follow_the_queue_and_what_they_trained_outlives_them(tmp_path: Path, slurm: Slurm) -> None:
    service = Service(tmp_path / "home", workers=0, lease_seconds="5")
    service.environment |= slurm.environment
    client = service.client
    options = ["--trials-per-worker", "4", "--idle-seconds", "2", "--poll-seconds", "1", "--until-empty"]

    def jobs() -> dict[str, str]:
        """States of the jobs that have not ended, by id."""
        lines = slurm.run("squeue", "--noheader", "--array", "--name=regsearch", "--format=%A|%T").splitlines()
        return dict(line.split("|") for line in lines)

    def saved() -> dict[int, int]:
        """Epochs of the trials that have a checkpoint, by id, which is a trial's number and one."""
        checkpoints = Checkpoints(LocalObjects(service.home))
        states = {trial_id: checkpoints.load(trial_id) for trial_id in range(1, TRIALS + 1)}
        return {trial_id: state["run"]["epoch"] for trial_id, state in states.items() if state is not None}

    client.post("/v1/studies", ENDLESS)
    launcher = service.start("launch", "slurm", *options)
    try:
        wait_for(lambda: [*jobs().values()] == ["RUNNING", "RUNNING"])
        wait_for(lambda: len(busy(client)) == 2)
        one = next(iter(jobs()))
        assert saved() == {}
        slurm.run("scancel", "--signal=USR1", "--batch", one)  # what Slurm itself does some time before the limit
        wait_for(lambda: "Restarts=1" in slurm.run("scontrol", "show", "job", one))
        given_back = saved()
        assert given_back
        wait_for(lambda: jobs().get(one) == "PENDING")
        # What is requeued waits for two minutes; a node refuses it in the second in which its credential ended.
        slurm.run("scontrol", "update", f"JobId={one}", "StartTime=now+3")
        wait_for(lambda: jobs().get(one) == "RUNNING")
        wait_for(lambda: len(busy(client)) == 2)

        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=120) == 0
        assert jobs() == {}
        counts = client.get("/v1/studies/1")["trials"]
        assert (counts["waiting"], counts["running"]) == (TRIALS, 0)
        assert all(saved()[trial_id] >= epochs for trial_id, epochs in given_back.items())
        given_back = saved()

        launcher = service.start("launch", "slurm", *options)
        wait_for(lambda: len(busy(client)) == 2)
        trials = end(client, 1)
        assert launcher.wait(timeout=120) == 0
        assert jobs() == {}
        assert {each["attempt"] for each in trials} == {0}
        gone_on = [each for each in trials if each["epochs"] > given_back.get(each["number"] + 1, math.inf)]
        assert gone_on
    finally:
        launcher.kill()
        launcher.wait()
        service.stop()
    assert broken(service.home) == []

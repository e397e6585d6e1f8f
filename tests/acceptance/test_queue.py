"""One worker, several studies: turns, pauses, and trials that go on where they were."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from tests.acceptance.conftest import Service, wait_for
from tests.acceptance.crash import broken_invariants

LONG: dict[str, Any] = {
    "data": {"dataset": "digits"},
    "model": {"widths": [32]},
    "space": {"preset": "default", "normalization": "none"},
    "validation": {"method": "holdout"},
    "early_stopping": "off",
    "pruner": "none",
    "budget": {"trials": 16, "epochs": 100, "finalists": 1, "seeds": 2},
}


def test_studies_take_turns_and_a_pause_loses_no_epoch(tmp_path: Path) -> None:
    service = Service(tmp_path / "home", turn_seconds="1")
    try:
        first, second = (service.client.post("/v1/studies", LONG | {"seed": seed})["id"] for seed in (1, 2))

        def of(study: int) -> dict[str, Any]:
            found: dict[str, Any] = service.client.get(f"/v1/studies/{study}")
            return found

        def trials_of_first() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = service.client.get(f"/v1/studies/{first}/trials", limit=100)["trials"]
            return found

        wait_for(lambda: of(second)["started_at"] and any(trial["epochs"] for trial in trials_of_first()))
        assert of(first)["state"] != "finished"
        service.client.post(f"/v1/studies/{first}/pause")
        wait_for(lambda: of(first)["trials"]["running"] == 0)
        waiting = of(first)["trials"]["waiting"]
        checkpoints = list((service.home / "checkpoints").glob("trial-*.pt"))
        assert of(first)["state"] == "paused"
        assert waiting > 0
        assert checkpoints
        wait_for(lambda: of(second)["state"] == "finished")
        assert of(first)["trials"]["waiting"] == waiting
        service.client.post(f"/v1/studies/{first}/resume")
        wait_for(lambda: of(first)["state"] == "finished")
        assert list((service.home / "checkpoints").glob("trial-*.pt")) == []
        assert {(trial["epochs"], trial["attempt"]) for trial in trials_of_first()} == {(100, 0)}
    finally:
        service.stop()
    assert broken_invariants(f"sqlite:///{service.home / 'regsearch.db'}", service.home) == []


def test_priority_goes_first_and_cancel_takes_effect_at_once(tmp_path: Path) -> None:
    service = Service(tmp_path / "home", workers=0)
    try:
        eager = {
            "preset": "default",
            "normalization": "none",
            "micro_batches": 2,
        }  # it would be long enough to be compiled, which takes long
        long = LONG | {"space": eager, "budget": {"trials": 1000, "epochs": 1000}}
        slow = service.client.post("/v1/studies", long)["id"]
        urgent = service.client.post(
            "/v1/studies", LONG | {"priority": 5, "budget": {"trials": 8, "epochs": 3, "finalists": 1, "seeds": 2}}
        )["id"]
        worker = service.start_worker()
        wait_for(lambda: service.client.get(f"/v1/studies/{urgent}")["state"] == "finished")
        wait_for(lambda: service.client.get(f"/v1/studies/{slow}")["trials"]["running"] > 0)
        service.client.post(f"/v1/studies/{slow}/cancel")
        cancelled = service.client.get(f"/v1/studies/{slow}")
        assert (cancelled["state"], cancelled["trials"]["running"]) == ("cancelled", 0)
        wait_for(lambda: service.client.get("/v1/workers")[0]["stats"].get("state") == "idle")
        worker.terminate()
        assert worker.wait(timeout=30) == 0
    finally:
        service.stop()


def have_been_leased(service: Service, count: int) -> bool:
    """Whether workers have taken so many leases."""
    with closing(sqlite3.connect(service.home / "regsearch.db")) as connection:
        found: int = connection.execute("SELECT sum(leases) FROM rs_studies").fetchone()[0]
    return found == count


def test_a_study_that_kills_worker_after_worker_ends_with_its_reason_and_the_next_is_served(tmp_path: Path) -> None:
    service = Service(tmp_path / "home", workers=0, lease_seconds="1")
    try:
        budget = {"trials": 4, "epochs": 2, "finalists": 1, "seeds": 2}
        poison = service.client.post("/v1/studies", LONG | {"priority": 5, "budget": budget | {"max_lost_workers": 2}})["id"]
        other = service.client.post("/v1/studies", LONG | {"budget": budget})["id"]

        def of(study: int) -> dict[str, Any]:
            found: dict[str, Any] = service.client.get(f"/v1/studies/{study}")
            return found

        for killed in (1, 2):
            worker = service.start_worker()
            wait_for(partial(have_been_leased, service, killed))
            worker.kill()  # while it loads and prepares: nothing has been reported
            worker.wait()
        worker = service.start_worker()  # finds that they are gone
        wait_for(lambda: of(other)["state"] == "finished")
        worker.terminate()
        worker.wait(timeout=30)
        assert of(poison)["state"] == "failed"
        assert of(poison)["reason"].startswith("2 workers in a row were lost, the last while it loaded its data")
        assert of(poison)["trials"]["running"] == 0
    finally:
        service.stop()

"""A study that goes on until it is stopped, and how its workers are: what the tests of launchers have in common."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from service.client.connection import HttpClient, Refused
from tests.acceptance.conftest import wait_for
from tests.acceptance.crash import broken_invariants

TRIALS = 8
ENDLESS: dict[str, Any] = {
    "data": {"dataset": "wine"},
    "model": {"widths": [16]},
    "space": {"preset": "default", "normalization": "none", "micro_batches": 2},  # which is not worth compiling
    "validation": {"method": "holdout"},
    "early_stopping": "off",
    "pruner": "none",
    "budget": {"trials": TRIALS, "epochs": 100_000, "finalists": 1, "seeds": 2},
}


def busy(client: HttpClient) -> set[int]:
    """Process ids of the workers that train."""
    workers = client.get("/v1/workers")
    return {each["pid"] for each in workers if each["state"] == "alive" and each["stats"].get("epochs_per_second", 0) > 0}


def end(client: HttpClient, study: int) -> list[dict[str, Any]]:
    """Stop every trial of a study, and cancel it where the rest would take as long; returns the trials."""

    def is_searched() -> bool:
        for trial in client.get(f"/v1/studies/{study}/trials", limit=100)["trials"]:
            if trial["state"] in ("waiting", "running"):
                with suppress(Refused):  # it has ended meanwhile
                    client.post(f"/v1/studies/{study}/trials/{trial['number']}/stop")
        return bool(client.get(f"/v1/studies/{study}")["state"] == "finalizing")

    wait_for(is_searched)
    assert client.get(f"/v1/studies/{study}")["trials"]["finished"] == TRIALS
    client.post(f"/v1/studies/{study}/cancel")
    found: list[dict[str, Any]] = client.get(f"/v1/studies/{study}/trials", limit=100)["trials"]
    return found


def broken(home: Path) -> list[str]:
    """What is wrong in a home, but for what cancelled studies and trials that were stopped before they began have."""
    expected = ("a study that has not ended", "an incomplete curve: trial")
    found = broken_invariants(f"sqlite:///{home / 'regsearch.db'}", home)
    found = [each for each in found if not each.startswith(expected[0])]
    return [each for each in found if not (each.startswith(expected[1]) and each.endswith(", 0 epochs, set() points"))]

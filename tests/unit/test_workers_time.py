"""Where a worker's time went is told of the study that it went to, whoever finalizes that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from service.spec import StudySpec
from service.store import Store, StudyState, open_store
from workers.liveness import Stop
from workers.worker import Worker


def submitted(store: Store, **parts: Any) -> int:
    raw = {
        "data": {"dataset": "wine"},
        "model": {"width": 8, "depth": 1},
        "space": {"preset": "off", "lr": {"low": 1e-3, "high": 1e-1, "log": True}},
        "budget": {"trials": 6, "epochs": 3, "finalists": 1, "seeds": 2},
        **parts,
    }
    return store.studies.submit(StudySpec.model_validate(raw).resolved("classification"))


def last_words(store: Store, worker: Worker) -> dict[str, Any]:
    (said,) = (record.stats for record in store.workers.list() if record.id == worker.id)
    return dict(said)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, cache=tmp_path / "cache")


def test_of_two_studies_in_turn_each_has_its_own_shares(settings: Settings) -> None:
    store = open_store(settings.database_url, create=True)
    studies = [submitted(store), submitted(store)]
    worker = Worker(store, settings, "cpu", Stop())
    phases, shares = [], {}
    while worker.turn():
        said = last_words(store, worker)
        phases.append((said["state"], said["study"]))
        if said["state"] == "searching":
            shares[said["study"]] = said["shares"]
    assert phases[:2] == [("searching", study) for study in studies], "the second is searched before the first is finalized"
    results = [store.studies.get(study).result for study in studies]
    store.close()
    for study, result in zip(studies, results, strict=True):
        assert result is not None
        assert result["utilization"] == pytest.approx(shares[study], abs=1e-4)
        assert 0 < result["utilization"]["training"] < 1
    assert shares[studies[0]] != pytest.approx(shares[studies[1]], abs=1e-4)


@pytest.mark.costly
def test_a_worker_that_only_finalizes_tells_of_those_that_searched(settings: Settings) -> None:
    store = open_store(settings.database_url, create=True)
    study = submitted(store)
    searching = Worker(store, settings, "cpu", Stop())
    assert searching.turn()
    assert store.studies.get(study).state is StudyState.FINALIZING
    found = last_words(store, searching)["shares"]
    other = open_store(settings.database_url)
    assert Worker(other, settings, "cpu", Stop()).turn()
    result = other.studies.get(study).result
    other.close()
    store.close()
    assert result is not None
    assert result["utilization"] == pytest.approx(found, abs=1e-4)

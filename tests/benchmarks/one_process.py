"""Whole studies in this process, on a database in a folder: what benchmarks use to run many of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.settings import Settings
from service.spec import StudySpec
from service.store import Store, StudyState, open_store
from workers.liveness import Stop
from workers.planning.process import set_up
from workers.worker import Worker


def run_study(spec: StudySpec, home: Path, device: str = "cpu", roots: tuple[Path, ...] = ()) -> tuple[Store, int]:
    """Search and finalize a resolved study; returns the store, which the caller closes, and the study's id.

    Raises:
        RuntimeError: The study failed.
    """
    set_up()
    home.mkdir(parents=True, exist_ok=True)
    store = open_store(f"sqlite:///{home / 'regsearch.db'}", create=True)
    study_id = store.studies.submit(spec)
    worker = Worker(store, Settings(home=home, data_roots=roots), device, Stop())
    while worker.turn():
        pass
    study = store.studies.get(study_id)
    if study.state is not StudyState.FINISHED:
        raise RuntimeError(f"study {study_id} is {study.state}: {study.reason}")
    return store, study_id


def answer_of(spec: StudySpec, home: Path, **how: Any) -> dict[str, Any]:
    """The result of a study."""
    store, study_id = run_study(spec, home, **how)
    result = store.studies.get(study_id).result
    store.close()
    assert result is not None, "a finished study has a result"
    return result

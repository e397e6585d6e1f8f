"""Studies that are run again: compared by hand, and whole ones in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.replay import MOST_DIFFERENCES, compare
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store, StudyState
from service.store.provenance import REPLAY_OF
from service.store.records import FinishedTrial
from tests.benchmarks.one_process import run_study
from workers.liveness import Stop
from workers.worker import Worker


def trial(number: int, **changes: Any) -> FinishedTrial:
    made = FinishedTrial(number, number, number, "complete", 1.0 + number, 5, {"lr": 0.1}, {}, {})
    return replace(made, **changes)


def test_equal_trials_are_the_same_whatever_their_ids() -> None:
    found = compare([trial(0), trial(1)], [trial(1, trial_id=9, seq=1), trial(0, trial_id=8, seq=2)])
    assert (found.same, found.same_order, found.trials, found.differing) == (True, False, 2, 0)
    assert compare([trial(0)], [trial(0)]).same_order


def test_every_difference_is_named() -> None:
    again = [trial(0, value=1.25, epochs=7), trial(1, params={"lr": 0.2}), trial(2, state="pruned"), trial(4)]
    again[2] = replace(again[2], also={"gap": 0.5})
    found = compare([trial(0), trial(1), trial(2), trial(3)], again)
    assert not found.same
    assert (found.differing, found.largest_difference) == (5, 0.25)
    said = {(each.number, each.field): (each.was, each.now) for each in found.differences}
    assert said == {
        (0, "value"): (1.0, 1.25),
        (0, "epochs"): (5, 7),
        (1, "params"): ({"lr": 0.1}, {"lr": 0.2}),
        (2, "state"): ("complete", "pruned"),
        (2, "also"): ({}, {"gap": 0.5}),
        (3, "trial"): ("complete", None),
        (4, "trial"): (None, "complete"),
    }


def test_a_hundred_differences_are_enough() -> None:
    found = compare([trial(n) for n in range(300)], [trial(n, epochs=1) for n in range(300)])
    assert (found.differing, len(found.differences)) == (300, MOST_DIFFERENCES)


def spec_of(path: Path) -> StudySpec:
    raw = {
        "data": {"path": str(path), "target": "y"},
        "model": {"widths": [8]},
        "space": {"preset": "minimal", "normalization": "none"},
        "budget": {"trials": 14, "epochs": 4},
        "sampler": {"name": "tpe", "startup_trials": 4},
        "also": ["gap"],
    }
    return StudySpec.model_validate(raw).resolved("regression")


def write_rows(path: Path, seed: int = 0) -> None:
    x = np.random.default_rng(seed).normal(size=(120, 3))
    rows = "\n".join(f"{a},{b},{c},{a * b + c}" for a, b, c in x.tolist())
    path.write_text(f"a,b,c,y\n{rows}\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Settings, Path]]:
    """A finished study on a file."""
    home = tmp_path_factory.mktemp("home")
    path = home / "rows.csv"
    write_rows(path)
    store, _ = run_study(spec_of(path), home, roots=(home,))
    yield store, Settings(home=home, data_roots=(home,), cache=home / "another cache"), path
    store.close()


def replayed(store: Store, settings: Settings) -> int:
    original = store.studies.get(1)
    spec = StudySpec.model_validate(original.spec)
    again = store.studies.submit(spec, attributes={REPLAY_OF: 1})
    worker = Worker(store, settings, "cpu", Stop())
    while worker.turn():
        pass
    return again


def test_a_replay_has_the_same_trials_and_the_same_answer(finished: tuple[Store, Settings, Path]) -> None:
    store, settings, _ = finished
    again = replayed(store, settings)
    assert store.studies.get(again).state is StudyState.FINISHED
    found = compare(store.history.since(1, 0), store.history.since(again, 0))
    assert (found.same, found.same_order, found.trials) == (True, True, 14), found.differences
    made = [store.provenance.get(study_id).made_of for study_id in (1, again)]
    assert made[0] == made[1]
    assert made[0] is not None
    assert made[0]["rows"] == 120
    assert len(made[0]["data_hash"]) == 64
    results = [store.studies.get(study_id).result or {} for study_id in (1, again)]
    for part in ("front", "winner", "baseline", "ties", "ablation", "ensemble", "importance"):
        assert results[0][part] == results[1][part]
    assert results[0]["provenance"] == made[0]


def test_other_rows_in_the_file_end_a_replay(finished: tuple[Store, Settings, Path]) -> None:
    store, settings, path = finished
    write_rows(path, seed=1)
    study = store.studies.get(replayed(store, settings))
    assert study.state is StudyState.FAILED
    assert "not that of study 1" in str(study.reason)

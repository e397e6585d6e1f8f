"""Studies with nested validation, from spec to answer: by a worker in this process, and by one that is killed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score

from service.cli import render
from service.errors import Conflict
from service.report.content import Source
from service.report.markdown import to_markdown
from service.report.story import build_report
from service.result import Result
from service.spec import StudySpec
from service.spec.nested import place
from service.store import open_store
from service.store.actors import StudyChange
from tests.acceptance.crash import Postgres, broken_invariants
from tests.unit.test_whole_studies import Bench, finished
from workers.answer.front import ranked
from workers.answer.nested import WINNER, OuterFolds, Pooled
from workers.data.prepare import features
from workers.plain import network as plain
from workers.searching.divided import Divided
from workers.study_data import Prepared

OUTER, INNER, TRIALS, ROWS = 3, 2, 4, 178
SPEC: dict[str, Any] = {
    "validation": {"method": "nested", "folds": INNER, "outer_folds": OUTER},
    "space": {
        "preset": "off",
        "lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "dropout": {"low": 0.1, "high": 0.5, "off": True},
        "batch_size": 32,
    },
    "budget": {"trials": TRIALS, "epochs": 6, "finalists": 2, "seeds": 2},
    "data": {"groups": "who", "drop": ["day", "part"]},
}


class Nested:
    """A finished study, and the finals of its outer folds once more."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.record = bench.run(**SPEC)
        finished(self.record)
        self.spec = StudySpec.model_validate(self.record.spec)
        self.result = Result.model_validate(self.record.result)
        self.trials, _ = bench.store.history.page(self.record.id, limit=1000)
        self.data: Prepared = bench.load(**SPEC)
        assert self.data.outer is not None
        self.readings: list[str] = []
        complete = [trial for trial in self.trials if trial.state == "complete"]
        folds = OuterFolds(self.spec, self.data.outer, self.data, lambda: None)
        self.pooled: Pooled = folds.run(ranked(self.spec, complete), self.readings.append)


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nested]:
    bench = Bench(tmp_path_factory.mktemp("nested"))
    yield Nested(bench)
    bench.store.close()


def test_every_search_has_its_trials_and_the_best_is_of_all_rows(nested: Nested) -> None:
    record, searches = nested.record, OUTER + 1
    assert record.budget_trials == searches * TRIALS
    assert Counter(place(trial.number, searches)[0] for trial in nested.trials) == dict.fromkeys(range(searches), TRIALS)
    for trial in nested.trials:
        assert trial.attrs.get("outer_fold", 0) == place(trial.number, searches)[0]
    own = [trial.value for trial in nested.trials if "outer_fold" not in trial.attrs and trial.state == "complete"]
    assert record.best is not None
    assert record.best.value == max(value for value in own if value is not None)
    assert place(record.best.number, searches)[0] == 0
    assert place(int(nested.result.winner.trial or 0), searches)[0] == 0


def test_no_row_of_an_outer_fold_is_on_a_lane_of_its_search(nested: Nested) -> None:
    """The matrices on the device are looked up, row by row, in all rows as the lane's fold sees them."""
    data, outer = nested.data, nested.data.outer
    assert outer is not None
    rows = Divided.of(data)
    for number in range(OUTER + 1):
        part, lanes = rows.lanes(nested.spec.seed, number)
        on, which = rows.data[part], place(number, OUTER + 1)[0]
        inside = set(outer.parts[which - 1].split.test) if which else set()
        for fold, _ in lanes:
            own = (outer.parts[which - 1] if which else data).folds[fold % INNER]
            everything = features(data.table, np.arange(ROWS), own.preprocessor)
            known = {row.tobytes(): index for index, row in enumerate(everything)}
            assert len(known) == ROWS
            used = torch.cat([on.train[fold], on.valid[fold]])
            seen = {known[on.x[row].numpy().tobytes()] for row in used}
            assert not seen & inside
            assert seen | inside == set(range(ROWS))


def test_the_score_is_that_of_predictions_for_rows_that_were_not_seen(nested: Nested) -> None:
    """Recomputed by scikit-learn, from the winners' networks as ordinary modules on the table's own rows."""
    predicted = np.full((2, ROWS), -1)
    for fold in nested.pooled.folds:
        test, seen = fold.data.split.test, fold.data.folds[0]
        x = torch.from_numpy(features(fold.data.table, test, seen.preprocessor))
        for place_, index in enumerate(fold.winner.runs):
            shape = fold.data.shape(fold.winner.recipe)
            network = plain.trained(shape, fold.winner.weights[index][0], "classification").eval()
            predicted[place_, test] = plain.outputs(network, x).argmax(1).numpy()
    assert (predicted >= 0).all()
    truth = nested.data.table.target
    expected = float(np.mean([accuracy_score(truth, each) for each in predicted]))
    found = nested.result.nested
    assert found is not None
    assert found.score.mean == pytest.approx(expected, abs=1e-6)
    assert found.score.n == ROWS
    assert found.score.low <= expected <= found.score.high
    assert nested.result.winner.test == found.score
    assert nested.result.gain == found.gain
    weights = [fold.rows for fold in found.folds]
    assert sum(weights) == ROWS
    assert np.average([fold.test for fold in found.folds], weights=weights) == pytest.approx(expected, abs=1e-6)
    out = nested.pooled.outs[WINNER]
    wider, plainly = nested.pooled.score(out), nested.pooled.gauge.score(out, nested.pooled.rows)
    assert (wider.jumps**2).sum() == pytest.approx((1 + OUTER / (OUTER - 1)) * (plainly.jumps**2).sum())


def test_each_outer_fold_is_read_once_and_on_record(nested: Nested) -> None:
    wanted = [f"score of outer fold {number} of {OUTER}" for number in range(1, OUTER + 1)]
    assert nested.readings == wanted
    record = nested.bench.store.studies.test_accesses(nested.record.id)
    assert [each["purpose"] for each in record] == wanted
    assert nested.result.test_accesses == OUTER


def test_report_and_model_tell_whose_score_it_is(nested: Nested) -> None:
    report = to_markdown(build_report(Source(nested.record, nested.result, nested.trials)))
    assert "the score belongs to the procedure" in report
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render.result(nested.result), soft_wrap=True)
    printed = console.export_text()
    assert f"is that of the procedure, from all {ROWS} rows" in printed
    assert all(f"fold {number}" in report for number in range(1, OUTER + 1))
    assert f"over {OUTER} outer folds" in nested.result.verdict
    assert nested.result.model is not None
    assert nested.result.model.refit is not None
    assert nested.result.model.refit.rows == ROWS
    assert "that of the procedure" in nested.result.model.rule


def test_trials_cannot_be_added(nested: Nested) -> None:
    studies, study_id = nested.bench.store.studies, nested.record.id
    with pytest.raises(Conflict, match="nested validation"):
        studies.extend(study_id, 4)
    with pytest.raises(Conflict, match="nested validation"):
        studies.change(study_id, StudyChange(budget={"trials": TRIALS + 4}))


@pytest.mark.costly
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_killed_worker_costs_no_search_its_trials(database: str, tmp_path: Path) -> None:
    server = Postgres() if database == "postgresql" else None
    url = server.url if server else f"sqlite:///{tmp_path / 'regsearch.db'}"
    store = open_store(url, create=True)
    raw = {"data": {"dataset": "wine"}, **{name: part for name, part in SPEC.items() if name != "data"}}
    budget = {"trials": TRIALS, "epochs": 40, "finalists": 1, "seeds": 2}
    small = {"model": {"width": 8, "depth": 1}, "early_stopping": "off", "pruner": "none"}
    spec = StudySpec.model_validate({**small, **raw, "budget": budget})
    study = store.studies.submit(spec.resolved("classification", ROWS))
    names = {"HOME": str(tmp_path), "CACHE": str(tmp_path / "cache"), "DB_URL": url, "LEASE_SECONDS": "2"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{f"REGSEARCH_{name}": value for name, value in names.items()}}
    command = [sys.executable, "-m", "workers", "--device", "cpu"]
    first = subprocess.Popen(command, env=environment)
    wait_until(lambda: store.studies.get(study).counts.finished > 0, first)
    first.kill()
    first.wait(30)
    killed_at = store.studies.get(study)
    second = subprocess.Popen(command, env=environment)
    wait_until(lambda: store.studies.get(study).finished_at is not None, second)
    second.kill()  # it makes the ONNX model now
    second.wait(30)
    assert killed_at.counts.finished < TRIALS * (OUTER + 1)
    record = store.studies.get(study)
    finished(record)
    found = Result.model_validate(record.result).nested
    trials, _ = store.history.page(study, limit=1000)
    store.close()
    assert broken_invariants(url, tmp_path) == []
    assert Counter(place(trial.number, OUTER + 1)[0] for trial in trials) == dict.fromkeys(range(OUTER + 1), TRIALS)
    assert found is not None
    assert len(found.folds) == OUTER
    if server:
        server.stop()


def wait_until(holds: Any, process: subprocess.Popen[bytes], seconds: float = 600.0) -> None:
    """Wait, while the worker is there."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, "the worker has ended"
        assert time.monotonic() < give_up, "it takes too long"
        time.sleep(0.05)

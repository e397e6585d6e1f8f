"""Trials that are stopped by hand while a worker trains them: they end with their best value, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import datasets

from service.objects.local import LocalObjects
from service.spec import StudySpec
from service.store import STOPPED, Store, StudyState, open_store
from service.store.records import Lease, Report, TrialResult
from workers.data import DataSource, load_table, make_split, prepare
from workers.liveness import Renewal
from workers.planning.plan import Plan
from workers.searching.checkpoints import Checkpoints
from workers.searching.divided import Divided
from workers.searching.session import Environment, Session
from workers.stack.device_data import DeviceData
from workers.stack.workshop import Workshop

EPOCHS = 100_000
"""More than any of these trials trains."""
PATIENCE = 3_000
"""Epochs after which a trial that should have been stopped ends the test."""


class Watched(Store):
    """A store in which something happens at every report."""

    def __init__(self, store: Store, happens: Callable[[Lease, list[Report]], None]) -> None:
        super().__init__(store.database)
        record = self.trials.record

        def watched(lease: Lease, reports: list[Report], results: list[TrialResult]) -> StudyState:
            state = record(lease, reports, results)
            happens(lease, reports)
            return state

        self.trials.record = watched  # type: ignore[method-assign, assignment]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/regsearch.db", create=True)
    yield opened
    opened.close()


def searched(store: Store, path: Path, happens: Callable[[Lease, list[Report]], None], *, lanes: int, trials: int) -> int:
    """A study of trials that never end by themselves, searched; returns its id."""
    bunch = datasets.load_iris()
    np.savez(path / "rows.npz", X=bunch.data, y=bunch.target)
    spec = StudySpec.model_validate(
        {
            "data": {"path": str(path / "rows.npz")},
            "validation": {"method": "holdout"},
            "model": {"widths": [4]},
            "space": {"preset": "off", "lr": {"low": 1e-3, "high": 1e-2, "log": True}, "batch_size": 64},
            "pruner": {"name": "none"},
            "early_stopping": {"patience": EPOCHS},
            "budget": {"trials": trials, "epochs": EPOCHS},
        }
    ).resolved("classification")
    study_id = store.studies.submit(spec)
    table = load_table(DataSource(task="classification", path=path / "rows.npz", format="npz"))
    fold = prepare(table, make_split(table, spec.validation, spec.seed), 0)
    on = DeviceData.of([fold], task="classification", outputs=3, device=torch.device("cpu"))
    lease = store.leases.claim("worker", 600)
    assert lease is not None
    watched, epochs = Watched(store, happens), 0

    def patience_is_over() -> bool:
        nonlocal epochs
        epochs += 1
        return epochs > PATIENCE

    with Renewal(store, lease, 600) as renewal:
        environment = Environment(
            Workshop(path), renewal, patience_is_over, Checkpoints(LocalObjects(path)), plan=Plan(lanes, None)
        )
        Session(watched, lease, spec, Divided([on], 1), environment).run()
    return study_id


def test_a_trial_ends_with_its_best_value_and_the_others_go_on(store: Store, tmp_path: Path) -> None:
    """Trial 1 is stopped first: the other one goes on until it is stopped, too."""
    numbers: dict[int, int] = {}
    order: list[int] = []

    def happens(lease: Lease, reports: list[Report]) -> None:
        numbers.update({trial: number for number, trial in store.history.running_under(lease).items()})
        running = {numbers[report.trial_id] for report in reports}
        if 1 in running and 1 not in order:
            order.append(1)
            store.stops.stop(lease.study_id, 1)
        elif 0 in running and 1 in order and 1 not in running and 0 not in order:
            order.append(0)
            store.stops.stop(lease.study_id, 0)

    study_id = searched(store, tmp_path, happens, lanes=2, trials=2)
    study = store.studies.get(study_id)
    assert (study.state, study.counts.complete) == (StudyState.FINALIZING, 2)
    zero, one = (store.history.trial(study_id, number) for number in (0, 1))
    assert zero.stop_reason == one.stop_reason == STOPPED
    assert one.epochs < zero.epochs < EPOCHS
    for trial in (zero, one):
        assert trial.curve is not None
        values = trial.curve[study.metric]
        best = max(values) if study.direction == "maximize" else min(values)
        assert (len(values), trial.value) == (trial.epochs, best)
        assert trial.best_step is not None
        assert values[trial.best_step] == trial.value


def test_a_trial_asked_ahead_never_begins(store: Store, tmp_path: Path) -> None:
    """On a single lane the trials asked ahead wait in the worker: they are stopped there, with no epoch."""

    def happens(lease: Lease, reports: list[Report]) -> None:
        for number in sorted(store.history.running_under(lease), reverse=True):
            store.stops.stop(lease.study_id, number)

    study_id = searched(store, tmp_path, happens, lanes=1, trials=3)
    study = store.studies.get(study_id)
    trials, _ = store.history.page(study_id)
    assert study.counts.finished == 3
    assert all(trial.stop_reason == STOPPED for trial in trials)
    assert {trial.state for trial in trials if trial.epochs == 0} <= {"pruned"}
    assert trials[0].state == "complete"

"""Studies with several objectives: every value is kept, and stock Optuna reads it with its direction."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection

from service.errors import InvalidInput
from service.store import Store
from service.store.records import AskedTrial, Report, TrialResult
from tests.contract.test_trials import proposals, started

VALUES = [(3.0, 0.1, 0.5), (2.0, 0.4, 0.9), (2.5, 0.4, 0.9), (2.0, 0.4, 0.1)]
FRONT = [0, 1]


def told(trial: AskedTrial, values: tuple[float, ...], state: Any = "complete") -> TrialResult:
    also = {"gap": values[1], "r2": values[2]}
    return TrialResult(trial.id, state, values[0], 2, "epochs", 3, {"rmse": [4.0, 3.5, values[0]]}, {}, also)


def test_every_value_is_kept_with_its_direction(store: Store) -> None:
    lease = started(store, name="several", also=["gap", "r2"])
    trials = store.trials.ask(lease, proposals(6))
    results = [told(trial, values) for trial, values in zip(trials, VALUES, strict=False)]
    failed = TrialResult(trials[5].id, "fail", None, None, "gap is not finite", 1)
    reports = [Report(trial.id, 0, 4.0) for trial in trials]
    for _ in range(2):  # a repeat changes nothing
        store.trials.record(lease, reports, [*results, told(trials[4], (9.0, 9.0, -9.0), "pruned"), failed])
    study = optuna.load_study(study_name="several", storage=store.optuna_storage())
    assert study.directions == [StudyDirection.MINIMIZE, StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
    assert study.metric_names == ["rmse", "gap", "r2"]
    assert [tuple(trial.values) for trial in study.trials[:4]] == VALUES
    assert (study.trials[4].state.name, study.trials[4].values) == ("PRUNED", [9.0, 9.0, -9.0])
    assert study.trials[5].values is None
    assert [trial.number for trial in study.best_trials] == FRONT


def test_people_and_workers_read_the_same(store: Store) -> None:
    lease = started(store, also=["gap", "r2"])
    trials = store.trials.ask(lease, proposals(2))
    store.trials.record(lease, [], [told(trials[1], VALUES[1])])
    page, _ = store.history.page(lease.study_id)
    assert [(trial.value, trial.also) for trial in page] == [(None, {}), (2.0, {"gap": 0.4, "r2": 0.9})]
    assert [*store.history.trial(lease.study_id, 1).also.values()] == [0.4, 0.9]
    (seen,) = store.history.since(lease.study_id, 0)
    assert [*seen.also.items()] == [("gap", 0.4), ("r2", 0.9)]
    record = store.studies.get(lease.study_id)
    assert record.objectives == {"rmse": "minimize", "gap": "minimize", "r2": "maximize"}
    assert record.best is not None
    assert (record.best.number, record.best.value) == (1, 2.0)


def test_a_study_of_one_objective_has_one_value_and_direction(store: Store) -> None:
    lease = started(store, name="one")
    (trial,) = store.trials.ask(lease, proposals(1))
    store.trials.record(lease, [], [TrialResult(trial.id, "complete", 2.0, 0, "epochs", 1)])
    study = optuna.load_study(study_name="one", storage=store.optuna_storage())
    assert (study.directions, study.trials[0].values) == ([StudyDirection.MINIMIZE], [2.0])
    assert store.history.trial(lease.study_id, 0).also == {}


def test_an_objective_without_a_value_is_refused(store: Store) -> None:
    lease = started(store, also=["gap", "r2"])
    (trial,) = store.trials.ask(lease, proposals(1))
    with pytest.raises(InvalidInput, match="every objective needs a value"):
        store.trials.record(lease, [], [told(trial, (1.0, float("nan"), 0.0))])
    assert store.studies.get(lease.study_id).counts.running == 1


def test_a_study_is_deleted_with_all_of_its_directions(store: Store) -> None:
    lease = started(store, name="gone", also=["gap"])
    store.studies.cancel(lease.study_id)
    store.studies.delete(lease.study_id)
    assert "gone" not in optuna.get_all_study_names(store.optuna_storage())

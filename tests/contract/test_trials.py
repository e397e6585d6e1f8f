"""Asking, reporting and telling in bulk: exact, fenced, idempotent and readable by stock Optuna."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sqlalchemy import event, text

from service.errors import LeaseLost
from service.store import Store, StudyState
from service.store.records import AskedTrial, Lease, Proposal, Report, TrialResult
from tests.contract.conftest import a_spec

DISTRIBUTIONS = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "norm": CategoricalDistribution(("none", "batch")),
    "step": IntDistribution(1, 9),
}


def proposals(n: int) -> list[Proposal]:
    return [Proposal({"lr": 1e-3 * (i + 1), "norm": "batch", "step": 1 + i % 9}, DISTRIBUTIONS) for i in range(n)]


def started(store: Store, **spec: object) -> Lease:
    study_id = store.studies.submit(a_spec(**spec))
    lease = store.leases.claim("worker", 60)
    assert lease is not None
    assert lease.study_id == study_id
    return lease


def complete(trial: AskedTrial, value: float = 1.0) -> TrialResult:
    return TrialResult(trial.id, "complete", value, 2, "converged", 3, {"rmse": [3.0, 2.0, value]}, {"stack": "mlp"})


def finish(store: Store, lease: Lease, trials: Sequence[AskedTrial]) -> StudyState:
    return store.trials.record(lease, [], [complete(trial, 1.0 + trial.number) for trial in trials])


def test_numbers_are_dense_and_the_budget_is_exact(store: Store) -> None:
    lease = started(store)
    first = store.trials.ask(lease, proposals(7))
    second = store.trials.ask(lease, proposals(7))
    assert [trial.number for trial in (*first, *second)] == list(range(10))
    assert store.trials.ask(lease, proposals(1)) == []


def test_the_budget_is_exact_between_threads(store: Store) -> None:
    lease = started(store, budget={"trials": 50})
    taken: list[AskedTrial] = []

    def ask() -> None:
        for _ in range(10):
            taken.extend(store.trials.ask(lease, proposals(3)))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trial.number for trial in taken) == list(range(50))


def test_a_planned_number_has_its_planned_parameters_whichever_worker_asks(store: Store) -> None:
    lease = started(store)
    points = {number: Proposal({"lr": 0.05, "norm": "none", "step": number}, DISTRIBUTIONS) for number in (1, 2, 4)}
    first = store.trials.ask(lease, proposals(2), points.get)
    second = store.trials.ask(lease, proposals(3), points.get)
    steps = {trial.number: trial.params["step"] for trial in (*first, *second)}
    assert steps == {0: 1, 1: 1, 2: 2, 3: 2, 4: 4}
    assert [trial.params["norm"] for trial in (*first, *second)] == ["batch", "none", "none", "batch", "none"]
    page, _ = store.history.page(lease.study_id)
    assert [trial.params for trial in page] == [dict(trial.params) for trial in (*first, *second)]


def test_a_study_is_finalized_once_everything_is_told(store: Store) -> None:
    lease = started(store, budget={"trials": 3})
    trials = store.trials.ask(lease, proposals(3))
    assert finish(store, lease, trials[:2]) is StudyState.RUNNING
    assert finish(store, lease, trials[2:]) is StudyState.FINALIZING
    record = store.studies.get(lease.study_id)
    assert (record.counts.complete, record.counts.running, record.epochs) == (3, 0, 9)
    assert record.best is not None
    assert (record.best.number, record.best.value, record.best.step) == (0, 1.0, 2)
    assert dict(record.best.params) == dict(trials[0].params)


def test_a_study_without_any_complete_trial_fails(store: Store) -> None:
    lease = started(store, budget={"trials": 2})
    results = [TrialResult(t.id, "fail", None, None, "not finite", 1) for t in store.trials.ask(lease, proposals(2))]
    assert store.trials.record(lease, [], results) is StudyState.FAILED
    assert store.studies.get(lease.study_id).reason == "no trial was completed; most often: not finite"


def test_too_many_failures_stop_the_study(store: Store) -> None:
    lease = started(store, budget={"trials": 10, "max_failed_trials": 1})
    trials = store.trials.ask(lease, proposals(4))
    reasons = ("out of memory", "not finite", "not finite")
    results = [TrialResult(each.id, "fail", None, None, reason, 1) for each, reason in zip(trials, reasons, strict=False)]
    assert store.trials.record(lease, [], results) is StudyState.FAILED
    record = store.studies.get(lease.study_id)
    assert record.reason == "3 trials failed, at most 1 may fail; most often: not finite"
    assert (record.counts.running, record.counts.fail) == (0, 4)


def test_recording_twice_changes_nothing(store: Store) -> None:
    lease = started(store)
    (trial,) = store.trials.ask(lease, proposals(1))
    reports = [Report(trial.id, 0, 3.0), Report(trial.id, 1, 2.0)]
    for _ in range(2):
        store.trials.record(lease, reports, [complete(trial)])
    record = store.studies.get(lease.study_id)
    assert (record.counts.complete, record.epochs) == (1, 3)
    assert len(store.history.since(lease.study_id, 0)) == 1


def test_a_lost_lease_can_write_nothing(store: Store) -> None:
    lease = started(store)
    (trial,) = store.trials.ask(lease, proposals(1))
    expire(store, lease)
    assert store.leases.reap() == 1
    for call in (
        lambda: store.trials.record(lease, [Report(trial.id, 0, 1.0)], [complete(trial)]),
        lambda: store.trials.ask(lease, proposals(1)),
        lambda: store.leases.renew(lease, 60),
        lambda: store.studies.finish(lease, {}),
    ):
        with pytest.raises(LeaseLost):
            call()
    assert store.studies.get(lease.study_id).counts.waiting == 1


def test_a_reaped_trial_is_retried_with_its_number_and_parameters(store: Store) -> None:
    lease = started(store)
    trials = store.trials.ask(lease, proposals(3))
    store.trials.record(lease, [Report(trials[0].id, 0, 1.0)], [complete(trials[1])])
    expire(store, lease)
    again = store.leases.claim("other", 60)
    assert again is not None
    assert again.token > lease.token
    retried = [trial for trial in store.trials.ask(again, proposals(10)) if not trial.fresh]
    assert [(t.number, dict(t.params), t.attempt) for t in retried] == [
        (t.number, dict(t.params), 1) for t in (trials[0], trials[2])
    ]
    assert store.history.trial(lease.study_id, 0).curve == {}


def test_a_trial_that_loses_too_many_workers_fails(store: Store) -> None:
    lease = started(store, budget={"trials": 1, "max_retries": 1})
    store.trials.ask(lease, proposals(1))
    expire(store, lease)
    again = store.leases.claim("other", 60)
    assert again is not None
    assert len(store.trials.ask(again, proposals(1))) == 1
    expire(store, again)
    store.leases.reap()
    record = store.history.trial(lease.study_id, 0)
    assert (record.state, record.stop_reason, record.attempt) == ("fail", "worker lost", 2)
    assert store.studies.get(lease.study_id).state is StudyState.FAILED


def test_a_trial_that_ran_out_of_memory_is_retried_and_finally_fails(store: Store) -> None:
    lease = started(store, budget={"trials": 2, "max_retries": 1})
    trials = store.trials.ask(lease, proposals(2))

    def out_of_memory(trial: AskedTrial) -> TrialResult:
        return TrialResult(trial.id, "retry", None, None, "out of memory", 0)

    for _ in range(2):  # the second call repeats the first, whose acknowledgement was lost
        store.trials.record(lease, [Report(trials[0].id, 0, 1.0)], [out_of_memory(trials[0])])
    record = store.history.trial(lease.study_id, 0)
    assert (record.state, record.attempt, record.curve) == ("waiting", 1, {})
    (again,) = store.trials.ask(lease, proposals(1))
    assert (again.number, again.fresh, dict(again.params)) == (0, False, dict(trials[0].params))
    results = [out_of_memory(again), complete(trials[1])]
    assert store.trials.record(lease, [], results) is StudyState.FINALIZING
    record = store.history.trial(lease.study_id, 0)
    assert (record.state, record.stop_reason, record.attempt) == ("fail", "out of memory", 2)
    counts = store.studies.get(lease.study_id).counts
    assert (counts.fail, counts.complete, counts.running, counts.waiting) == (1, 1, 0, 0)
    assert [trial.number for trial in store.history.since(lease.study_id, 0)] == [1, 0]


def test_a_released_trial_waits_without_counting_an_attempt(store: Store) -> None:
    lease = started(store)
    store.trials.ask(lease, proposals(2))
    store.leases.release(lease)
    again = store.leases.claim("other", 60)
    assert again is not None
    assert [(trial.attempt, trial.fresh) for trial in store.trials.ask(again, proposals(3))] == [
        (0, False),
        (0, False),
        (0, True),
    ]


def test_parallelism_is_capped(store: Store) -> None:
    lease = started(store, max_parallel_trials=3)
    trials = store.trials.ask(lease, proposals(5))
    assert len(trials) == 3
    finish(store, lease, trials[:1])
    assert len(store.trials.ask(lease, proposals(5))) == 1


def test_no_trial_starts_after_the_deadline(store: Store) -> None:
    lease = started(store, budget={"trials": 5, "seconds": 100})
    (trial,) = store.trials.ask(lease, proposals(1))
    sql = "UPDATE rs_studies SET started_at = started_at - 1000"
    store.database.write(lambda connection: connection.execute(text(sql)))
    assert store.trials.ask(lease, proposals(1)) == []
    assert finish(store, lease, [trial]) is StudyState.FINALIZING


def test_a_released_study_whose_time_budget_ends_is_finalized(store: Store) -> None:
    lease = started(store, budget={"trials": 5, "seconds": 100})
    (trial,) = store.trials.ask(lease, proposals(1))
    finish(store, lease, [trial])
    store.leases.release(lease)
    sql = "UPDATE rs_studies SET started_at = started_at - 1000"
    store.database.write(lambda connection: connection.execute(text(sql)))
    final = store.leases.claim("other", 60)
    assert final is not None
    assert final.phase == "finalize"


def test_history_is_read_in_increments_in_the_order_told(store: Store) -> None:
    lease = started(store)
    trials = store.trials.ask(lease, proposals(4))
    finish(store, lease, [trials[2]])
    finish(store, lease, [trials[0], trials[3]])
    seen = store.history.since(lease.study_id, 0)
    assert [(trial.seq, trial.number) for trial in seen] == [(1, 2), (2, 0), (3, 3)]
    assert seen[0].curve == {"rmse": [3.0, 2.0, 3.0]}
    assert seen[0].distributions == DISTRIBUTIONS
    assert [trial.number for trial in store.history.since(lease.study_id, 2)] == [3]


def test_stock_optuna_reads_what_we_wrote(store: Store) -> None:
    lease = started(store, name="for optuna")
    trials = store.trials.ask(lease, proposals(4))
    reports = [Report(t.id, step, 2.0 - step) for t in trials for step in range(2)] + [Report(trials[3].id, 2, math.nan)]
    results = [
        complete(trials[0]),
        TrialResult(trials[1].id, "pruned", 1.5, 1, "pruned", 2),
        TrialResult(trials[2].id, "fail", None, None, "not finite", 1),
    ]
    store.trials.record(lease, reports, results)
    study = optuna.load_study(study_name="for optuna", storage=store.optuna_storage())
    assert study.direction is optuna.study.StudyDirection.MINIMIZE
    assert study.metric_names == ["rmse"]
    assert study.user_attrs["spec"]["name"] == "for optuna"
    read = study.trials
    assert [trial.state.name for trial in read] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert [trial.number for trial in read] == [0, 1, 2, 3]
    assert read[0].params == dict(trials[0].params)
    assert read[0].distributions == DISTRIBUTIONS
    assert read[0].intermediate_values == {0: 2.0, 1: 1.0}
    assert math.isnan(read[3].intermediate_values[2])
    assert (read[0].value, read[1].value, read[2].value) == (1.0, 1.5, None)
    assert read[0].user_attrs == {"stop_reason": "converged", "stack": "mlp"}
    assert all(trial.datetime_start is not None for trial in read)
    assert study.best_trial.number == 0


@pytest.mark.parametrize("lanes", [4, 64])
def test_statements_do_not_grow_with_the_lanes(store: Store, lanes: int) -> None:
    lease = started(store, budget={"trials": 100})
    counted = {"statements": 0, "commits": 0}

    def statement(*_: object) -> None:
        counted["statements"] += 1

    def commit(*_: object) -> None:
        counted["commits"] += 1

    event.listen(store.database.engine, "before_cursor_execute", statement)
    event.listen(store.database.engine, "commit", commit)
    trials = store.trials.ask(lease, proposals(lanes))
    assert counted["commits"] == 1
    assert counted["statements"] <= 10
    counted.update(statements=0, commits=0)
    store.trials.record(lease, [Report(trial.id, 0, 1.0) for trial in trials], [])
    assert counted["commits"] == 1
    assert counted["statements"] <= 5
    counted.update(statements=0, commits=0)
    store.trials.record(lease, [], [complete(trial) for trial in trials])
    assert counted["commits"] == 1
    assert counted["statements"] <= 14


def expire(store: Store, lease: Lease) -> None:
    """Let a lease expire, as that of a worker that is known to be dead."""
    sql = text("UPDATE rs_leases SET expires_at = 0 WHERE token = :token")
    store.database.write(lambda connection: connection.execute(sql, {"token": lease.token}))


def test_open_trials_are_distinguished_from_ended_ones(store: Store) -> None:
    lease = started(store, budget={"trials": 3})
    running, waiting, ended = store.trials.ask(lease, proposals(3))
    store.trials.record(lease, [], [complete(ended)])
    everyone = [running.id, waiting.id, ended.id]
    assert store.history.open_among([*everyone, *range(10_000, 11_500)]) == {running.id, waiting.id}
    store.leases.release(lease)
    assert store.history.open_among(everyone) == {running.id, waiting.id}
    store.studies.cancel(lease.study_id)
    assert store.history.open_among(everyone) == set()
    assert store.history.open_among([]) == set()

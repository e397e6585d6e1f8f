"""Studies that programs run, on both databases: leases by name, final runs, and what is left of both."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from service.errors import LeaseLost, NotFound
from service.spec.external import ExternalSpec
from service.store import Store, StudyState
from service.store.records import FinalRun, Lease, Proposal, Report, TrialResult
from tests.contract.test_trials import proposals

ME, OTHER = "program-one", "program-two"


def a_spec(**changes: Any) -> ExternalSpec:
    budget = {"trials": 4, "epochs": 5, "max_retries": 1, **changes.pop("budget", {})}
    raw = {"executor": "external", "metric": "rmse", "space": {"lr": {"low": 0.001, "high": 0.1}}, "budget": budget}
    return ExternalSpec.model_validate({**raw, **changes})


def held(store: Store, study_id: int, client: str = ME) -> Lease:
    lease = store.leases.hold(study_id, client, 60)
    assert lease is not None
    return lease


def runs(n: int, first: int = 0, name: str = "trial 0") -> list[FinalRun]:
    return [FinalRun(first + index, name, "finalist", 0, index, {"lr": 0.1}) for index in range(n)]


def searched(store: Store, study_id: int) -> None:
    """All trials of a study, told."""
    lease = held(store, study_id)
    asked = store.trials.ask(lease, proposals(4))
    results = [TrialResult(trial.id, "complete", 1.0, 0, "told", 1) for trial in asked]
    assert store.trials.record(lease, [], results) is StudyState.FINALIZING


def test_no_worker_claims_it(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    assert store.leases.claim("worker", 60) is None
    searched(store, study_id)
    assert store.leases.claim("worker", 60) is None
    assert store.studies.get(study_id).objectives == {"rmse": "minimize"}


def test_directions_and_objectives_are_its_own(store: Store) -> None:
    given = {"metric": "score", "direction": "maximize", "also": {"size": "minimize"}}
    study = store.studies.get(store.studies.submit(a_spec(**given)))
    assert study.external
    assert study.objectives == {"score": "maximize", "size": "minimize"}


def test_a_program_holds_one_lease_by_its_name(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    first = held(store, study_id)
    assert held(store, study_id).token == first.token
    assert held(store, study_id, OTHER).token != first.token
    assert store.leases.held(study_id, ME).token == first.token
    assert store.studies.get(study_id).state is StudyState.RUNNING
    with pytest.raises(LeaseLost, match="program-three"):
        store.leases.held(study_id, "program-three")
    with pytest.raises(NotFound):
        store.leases.hold(99, ME, 60)


def test_nothing_is_held_of_a_study_that_has_no_work(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    store.studies.cancel(study_id)
    assert store.leases.hold(study_id, ME, 60) is None


def test_the_same_key_asks_for_the_same_trials(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    lease = held(store, study_id)
    first = store.trials.ask(lease, proposals(2), key="k")
    assert [each.number for each in store.trials.ask(lease, proposals(2), key="k")] == [each.number for each in first]
    assert [each.number for each in store.trials.ask(lease, proposals(2), key="l")] == [2, 3]


def test_programs_that_end_without_reporting_do_not_fail_the_study(store: Store) -> None:
    study_id = store.studies.submit(a_spec(budget={"max_lost_workers": 1}))
    for _ in range(3):
        held(store, study_id)
        store.leases.expire(ME)
        assert store.leases.reap() == 1
    assert store.studies.get(study_id).state is StudyState.RUNNING


def test_final_runs_are_planned_once_and_run_once(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    searched(store, study_id)
    planned: list[Sequence[FinalRun]] = []

    def plan(known: Sequence[FinalRun]) -> list[FinalRun]:
        planned.append(known)
        return runs(3) if not known else runs(1, 3, "unregularized") if len(known) == 3 else []

    mine, other = held(store, study_id), held(store, study_id, OTHER)
    assert mine.phase == "finalize"
    first, done = store.finals.ask(mine, 2, plan, "a")
    assert [run.number for run in first] == [0, 1]
    assert not done
    assert store.finals.ask(mine, 2, plan, "a")[0] == [dataclasses.replace(run, state="running") for run in first]
    assert [run.number for run in store.finals.ask(other, 2, plan, "b")[0]] == [2]
    assert store.finals.ask(other, 2, plan, "c") == ([], False)
    for number, lease in ((0, mine), (1, mine), (2, other)):
        store.finals.tell(lease, number, value=0.5 + number, test=0.7)
        store.finals.tell(lease, number, value=9.0)  # again: nothing changes
    assert [run.value for run in store.finals.all(study_id)] == [0.5, 1.5, 2.5]
    assert [run.name for run in store.finals.ask(mine, 5, plan, "d")[0]] == ["unregularized"]
    store.finals.tell(mine, 3, value=None, reason="out of memory")
    assert store.finals.ask(mine, 5, plan, "e") == ([], True)
    last = store.finals.all(study_id)[-1]
    assert (last.state, last.value, last.reason) == ("fail", None, "out of memory")
    assert [len(known) for known in planned] == [0, 3, 4]


def test_final_runs_of_a_lost_program_are_asked_again_and_fail_at_last(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    searched(store, study_id)
    for attempt in range(2):
        lease = held(store, study_id)
        ((run,), _) = store.finals.ask(lease, 1, lambda known: [] if known else runs(1), f"{attempt}")
        assert run.attempt == attempt
        store.leases.expire(ME)
        store.leases.reap()
        with pytest.raises(LeaseLost):
            store.finals.tell(lease, 0, value=1.0)
    assert [(run.state, run.reason) for run in store.finals.all(study_id)] == [("fail", "program lost")]


def test_final_runs_that_are_given_back_lose_no_attempt(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    searched(store, study_id)
    for attempt in range(4):
        lease = held(store, study_id)
        assert len(store.finals.ask(lease, 1, lambda known: [] if known else runs(1), f"{attempt}")[0]) == 1
        store.leases.release(lease)
    assert store.finals.all(study_id)[0].state == "waiting"


def test_only_who_runs_it_tells_it(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    searched(store, study_id)
    mine, other = held(store, study_id), held(store, study_id, OTHER)
    store.finals.ask(mine, 1, lambda known: [] if known else runs(1), "k")
    for lease, number in ((other, 0), (mine, 7)):
        with pytest.raises(LeaseLost):
            store.finals.tell(lease, number, value=1.0)


def test_more_trials_begin_the_finals_anew_and_deletion_removes_them(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    searched(store, study_id)
    lease = held(store, study_id)
    store.finals.ask(lease, 0, lambda known: [] if known else runs(2), "k")
    store.studies.finish(lease, {"verdict": "done"})
    assert len(store.finals.all(study_id)) == 2
    store.studies.extend(study_id, 2)
    assert store.finals.all(study_id) == []
    store.studies.cancel(study_id)
    store.studies.delete(study_id)
    assert store.finals.all(study_id) == []


def test_programs_in_several_threads_keep_the_budget(store: Store) -> None:
    study_id = store.studies.submit(a_spec(budget={"trials": 24}))
    taken: list[int] = []

    def work(name: str) -> None:
        while (lease := store.leases.hold(study_id, name, 60)) is not None and lease.phase == "search":
            asked = store.trials.ask(lease, [Proposal(each.params, each.distributions) for each in proposals(2)])
            if not asked:
                return
            taken.extend(trial.number for trial in asked)
            store.trials.record(lease, [], [TrialResult(trial.id, "complete", 1.0, 0, "told", 1) for trial in asked])

    threads = [threading.Thread(target=work, args=(f"program-{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(24))
    assert store.studies.get(study_id).state is StudyState.FINALIZING


def test_curves_of_running_trials_are_read_at_once(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    lease = held(store, study_id)
    first, second = store.trials.ask(lease, proposals(2))
    store.trials.record(lease, [Report(first.id, 0, 1.0), Report(first.id, 2, 3.0)], [])
    curves = store.history.reported([first.id, second.id])
    assert curves[second.id] == []
    assert str(curves[first.id]) == "[1.0, nan, 3.0]"
    assert store.history.running_under(lease) == {0: first.id, 1: second.id}


def test_a_short_lease_takes_no_long_one_away(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    patient = store.leases.hold(study_id, ME, 3600)
    assert patient is not None
    for _ in range(2):
        store.leases.hold(study_id, OTHER, 0.2)
        for _ in range(2):  # looked at after half of its time, and once more
            time.sleep(0.15)
            store.leases.reap(0.2)  # ten times the usual is no sign of a clock that was set
    assert store.leases.held(study_id, ME).token == patient.token
    with pytest.raises(LeaseLost):
        store.leases.held(study_id, OTHER)

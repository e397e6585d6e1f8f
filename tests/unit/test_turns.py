"""Several stacks on one device: none starves, few lanes are computed in vain, and the share of those is told."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets

from service.objects.local import LocalObjects
from service.spec import StudySpec
from service.store import open_store
from tests.unit.stack.runs import data, protocol, recipe
from workers.data import DataSource, load_table, make_split, prepare
from workers.liveness import Renewal
from workers.planning.plan import Plan
from workers.searching.checkpoints import Checkpoints
from workers.searching.divided import Divided
from workers.searching.session import Environment, Session
from workers.searching.turns import PATIENCE, Occupancy, Turns
from workers.stack.block import Epoch
from workers.stack.device_data import DeviceData
from workers.stack.layout import Layout
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import Stack, StackKey
from workers.stack.workshop import Workshop

LANES = 16


def runner(runs: int, *, captured: bool = True) -> StackRunner:
    """A stack with so many runs, which are never trained here."""
    on = data()
    layout = Layout(LANES, graphs=True) if captured else Layout()
    made = StackRunner(StackKey.of(recipe(), on.inputs, on.outputs), on, layout=layout)
    made.add([Run(i, recipe(), ((0, i),), protocol()) for i in range(runs)])
    return made


def test_a_stack_with_idle_lanes_waits_for_runs_but_not_for_ever() -> None:
    full, queue, nearly, sparse, nothing = (runner(n) for n in (LANES, 3 * LANES, LANES - 2, 1, 0))
    turns = Turns()
    rounds = [turns.due([sparse, full, nothing, queue, nearly]) for _ in range(3 * (PATIENCE + 1))]
    assert all(due == [full, queue, nearly] for number, due in enumerate(rounds, start=1) if number % (PATIENCE + 1))
    assert all(due == [sparse, full, queue, nearly] for due in rounds[PATIENCE :: PATIENCE + 1])


def test_of_stacks_that_all_have_idle_lanes_the_fullest_trains() -> None:
    one, other, same = runner(5), runner(9), runner(9)
    assert Turns().due([one, other, same]) == [other, same]
    assert Turns().due([one]) == [one]
    assert Turns().due([runner(0)]) == []


def test_a_stack_waits_for_nothing_that_will_not_come() -> None:
    sparse, full, eager = runner(1), runner(LANES), runner(1, captured=False)
    sparse.last_call = True
    assert Turns().due([sparse, full, eager]) == [sparse, full, eager]


def test_a_round_of_its_own_begins_the_patience_anew() -> None:
    sparse, full = runner(1), runner(LANES)
    turns = Turns()
    for _ in range(PATIENCE):
        assert turns.due([sparse, full]) == [full]
    assert turns.due([sparse]) == [sparse]
    assert turns.due([sparse, full]) == [full]


def test_without_patience_every_stack_trains_in_every_round() -> None:
    stacks = [runner(1), runner(LANES), runner(5)]
    turns = Turns(patience=0)
    assert turns.due(stacks) == turns.due(stacks) == stacks


def test_the_steady_state_is_without_filling_and_tail() -> None:
    found = Occupancy()
    assert found.steady == 1.0
    #         before the round: live, computed, all in demand, more may come
    for live, computed, full, supplied in (
        (0, 0, False, True),
        (2, 10, True, True),
        (10, 20, False, True),
        (18, 30, True, True),
        (28, 40, False, False),
        (30, 60, False, False),
    ):
        found.note(live, computed, full=full, supplied=supplied)
    assert found.steady == pytest.approx((28 - 2) / (40 - 10))


class Watched(StackRunner):
    """Counts the epochs that others train while it has work."""

    everyone: list[Watched]
    order: list[int]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.everyone.append(self)
        self.batch_size = arguments[0].batch_size
        self.waits: Counter[int] = Counter()
        self.longest = 0

    def start(self) -> list[Future[Epoch]]:
        for other in self.everyone:
            if other is not self and other.wanted_lanes:
                other.waits[self.batch_size] += 1
                other.longest = max(other.longest, *other.waits.values())
        self.waits.clear()
        return super().start()


KEYS = {8: 0.85, 32: 0.1, 128: 0.05}
"""Batch sizes, each a stack of its own, the dearest the most wanted; and their shares of the trials."""


def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan, trials: int) -> tuple[Session, list[Watched]]:
    """A study with successive halving in a session, its stacks of fixed sizes run as they are written: to compile them
    takes long, and changes nothing here.
    """

    def as_written(key: StackKey, on: DeviceData, *, techniques: frozenset[str], graphs: bool = False) -> Stack:
        return Stack(key, on, techniques=techniques)

    monkeypatch.setattr("workers.stack.runner.Stack", as_written)
    if plan.compiled_lanes:
        monkeypatch.setattr(Plan, "layout", lambda *_: Layout(plan.compiled_lanes, graphs=True))
    monkeypatch.setattr(Watched, "everyone", [], raising=False)
    monkeypatch.setattr("workers.searching.stacks.StackRunner", Watched)
    bunch = datasets.load_wine()
    np.savez(tmp_path / "rows.npz", X=bunch.data, y=bunch.target)
    sizes = np.random.default_rng(0).choice([*KEYS], size=trials, p=[*KEYS.values()])
    spec = StudySpec.model_validate(
        {
            "data": {"path": str(tmp_path / "rows.npz")},
            "model": {"widths": [8]},
            "space": {"preset": "off", "lr": {"low": 1e-3, "high": 1e-1, "log": True}, "batch_size": [*KEYS]},
            "enqueue": [{"batch_size": int(size)} for size in sizes],
            "pruner": {"name": "successive_halving", "min_epochs": 2, "reduction_factor": 3},
            "early_stopping": "off",
            "budget": {"trials": trials, "epochs": 18},
        }
    ).resolved("classification")
    store = open_store(f"sqlite:///{tmp_path}/regsearch.db", create=True)
    study_id = store.studies.submit(spec)
    table = load_table(DataSource(task="classification", path=tmp_path / "rows.npz", format="npz"))
    fold = prepare(table, make_split(table, spec.validation, spec.seed), 0)
    on = DeviceData.of([fold], task="classification", outputs=3, device=torch.device("cpu"))
    lease = store.leases.claim("worker", 600)
    assert lease is not None
    renewal = Renewal(store, lease, 600)
    checkpoints = Checkpoints(LocalObjects(tmp_path))
    environment = Environment(Workshop(tmp_path), renewal, lambda: False, checkpoints, plan=plan)
    session = Session(store, lease, spec, Divided([on], 1), environment)
    session.run()
    counts = store.studies.get(study_id).counts
    store.close()
    assert (counts.finished, counts.fail) == (trials, 0)
    return session, Watched.everyone


each_way = pytest.mark.parametrize("plan", [Plan(3 * LANES, LANES), Plan(6, None)], ids=["fixed sizes", "eager, few lanes"])


@each_way
def test_no_key_starves_in_a_study(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many trials of other keys there are, each of these trains a bounded number of epochs between two of a key."""
    _, stacks = searched(tmp_path, monkeypatch, plan, trials=200 if plan.compiled_lanes else 60)
    assert len(stacks) == len(KEYS)
    longest = {stack.batch_size: stack.longest for stack in stacks}
    assert longest[8] <= 2, "the stack that is full has a turn in every round"
    assert all(waited <= PATIENCE + 2 for waited in longest.values())
    assert (max(longest.values()) > 2) == (plan.compiled_lanes is not None)


def test_lanes_are_hardly_ever_idle_in_the_steady_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = searched(tmp_path, monkeypatch, Plan(3 * LANES, LANES), trials=400)
    assert session.steady_occupancy >= 0.95
    assert session.occupancy < session.steady_occupancy

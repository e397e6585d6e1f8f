"""How many workers the queue has work for. Thread-safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, and_, case, func, or_, select

from service.store import tables as t
from service.store.engine import Database
from service.store.records import SEARCHED, StudyState

TRIALS_PER_WORKER = 32
"""Trials of a study that a further worker is wanted for, unless asked otherwise."""


@dataclass(frozen=True)
class Demand:
    """Studies that workers of some number of devices have work for, the trials that these have left, and the workers that
    they could use at once; ``larger`` studies want more devices than that, ``devices`` at most.
    """

    studies: int
    trials: int
    workers: int
    larger: int = 0
    devices: int = 0


class Demands:
    """Reads the demand for workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, trials_per_worker: int = TRIALS_PER_WORKER, devices_per_trial: int = 1) -> Demand:
        """The demand now: of each study in its search one worker for every ``trials_per_worker`` (> 0) trials that it has
        left, those in training included, but no more than it may train at once; of one in `finalizing` a single worker.
        Only workers of ``devices_per_trial`` devices are meant, which can't take studies of networks on more.
        """
        query = _query(self._database, trials_per_worker, devices_per_trial)
        row: RowMapping = self._database.read(lambda connection: connection.execute(query).mappings().one())
        return Demand(**{name: int(value) for name, value in row.items()})


def _query(database: Database, trials_per_worker: int, devices: int) -> Any:
    """One row of sums over the open studies, which are few: an index leads to them."""
    s = t.studies
    in_time = or_(
        s.c.budget_seconds.is_(None), s.c.started_at.is_(None), database.now <= s.c.started_at + s.c.budget_seconds
    )
    begun = s.c.waiting + s.c.running
    left = begun + case((in_time, s.c.budget_trials - s.c.asked), else_=0)
    wished = (left + trials_per_worker - 1) // trials_per_worker
    most = func.coalesce(s.c.max_parallel, wished)
    searching = case((wished < most, wished), else_=most)
    finalizing = s.c.state == StudyState.FINALIZING.value
    mine = and_(
        s.c.executor == "workers",
        s.c.state.in_((*SEARCHED, StudyState.FINALIZING)),
        or_(finalizing, left > 0),
    )
    larger = s.c.devices > devices

    def total(of_one: Any) -> Any:
        return func.coalesce(func.sum(case((larger, 0), else_=of_one)), 0)

    return select(
        total(1).label("studies"),
        total(case((finalizing, 0), else_=left)).label("trials"),
        total(case((finalizing, 1), else_=searching)).label("workers"),
        func.coalesce(func.sum(case((larger, 1), else_=0)), 0).label("larger"),
        func.coalesce(func.max(case((larger, s.c.devices), else_=0)), 0).label("devices"),
    ).where(mine)

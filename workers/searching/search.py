"""Searching a study under one lease: with its plan, its provenance and its shares of time."""

from __future__ import annotations

import logging
from typing import Any

from service.errors import LeaseLost, TrialError
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store
from service.store.records import Lease
from service.tracing import span
from workers.liveness import Pulse, Renewal, Stop
from workers.planning.plan import Plan
from workers.searching.checkpoints import Checkpoints
from workers.searching.provenance import made_of
from workers.searching.session import Environment, Session
from workers.stack.memory import used_bytes
from workers.stack.workshop import Workshop
from workers.study_data import Prepared

log = logging.getLogger(__name__)


class Searcher:
    """Searches studies for one worker, one lease at a time."""

    def __init__(
        self, store: Store, settings: Settings, pulse: Pulse, stop: Stop, checkpoints: Checkpoints, workshop: Workshop
    ) -> None:
        self._store = store
        self._settings = settings
        self._pulse = pulse
        self._stop = stop
        self._checkpoints = checkpoints
        self._workshop = workshop

    def run(self, lease: Lease, renewal: Renewal, spec: StudySpec, data: Prepared) -> None:
        """Work until the study no longer needs this worker; then the lease is released.

        Raises:
            LeaseLost: The lease was taken away; all trials are dropped.
            DatabaseUnavailable: The database did not come back.
            TrialError: The study is a replay, and its data is not that of the original.
        """
        plan = self._plan_to_repeat(lease.study_id, data)
        turn = self._settings.turn_seconds
        environment = Environment(self._workshop, renewal, self._stop, self._checkpoints, turn, plan)
        session = Session(self._store, lease, spec, data.device, environment)
        first = self._store.provenance.note(lease.study_id, made_of(data.table, data.device.device, session.plan))
        try:
            with self._pulse.during(lambda: _stats(lease, session, session.shares())), span("search"):
                session.run()
        except LeaseLost:
            self._note_time(lease, session)
            raise
        if first:
            made = made_of(data.table, data.device.device, session.plan_kept)
            self._store.provenance.note(lease.study_id, made, again=True)
        self._note_time(lease, session)

    def _note_time(self, lease: Lease, session: Session) -> None:
        """Store the shares of time with the study, for the worker that finalizes it."""
        shares = session.shares()
        self._store.utilization.add(lease.study_id, session.timer.elapsed, shares)
        self._pulse.beat(_stats(lease, session, shares))
        log.info("study %d: %s", lease.study_id, shares)

    def _plan_to_repeat(self, study_id: int, data: Prepared) -> Plan | None:
        """The plan of the study that this one replays, on the same data; None for other studies."""
        original = self._store.provenance.get(study_id).replay_of
        known = None if original is None else self._store.provenance.get(original).made_of
        if known is None:
            return None
        found = data.table.data_hash()
        if found != known["data_hash"]:
            raise TrialError(f"the data is not that of study {original}: its hash is {found}, not {known['data_hash']}")
        return Plan.of(known["plan"])


def _stats(lease: Lease, session: Session, shares: dict[str, float]) -> dict[str, Any]:
    return {
        "state": "searching",
        "study": lease.study_id,
        "lanes": session.lanes,
        "occupancy": round(session.occupancy, 4),
        "steady_occupancy": round(session.steady_occupancy, 4),
        "epochs_per_second": round(session.lane_epochs / session.timer.elapsed, 1),
        "device_memory_bytes": used_bytes(session.device),
        "shares": shares,
    }

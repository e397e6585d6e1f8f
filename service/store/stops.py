"""Single trials that somebody stops while the search goes on. Thread-safe.

A running trial is only marked: who runs it ends it, with the best value so far, as early stopping would have. One that waits
ends here, as PRUNED without a value, and so does one that is given back. Either way it is told, and the budget is exact.
"""

from __future__ import annotations

from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, bindparam, select, update

from service.errors import Conflict, NotFound
from service.store import tables as t
from service.store.actors import NOBODY, Actor
from service.store.alterations import put_on_record
from service.store.engine import Database, Once
from service.store.records import Lease
from service.store.rows import STATE_OF, STOPPED, count, end_trials, lock_study, settle

_MARKED = (t.trials.c.lease_token == bindparam("mine")) & t.trials.c.stop_asked_at.is_not(None)
_ASKED = select(t.trials.c.trial_id).where(_MARKED)
"""Built once, as every worker asks all the time: constructing it costs more than running it."""


class Stops:
    """Operations on trials that are to stop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stop(self, study_id: int, number: int, request: Once | None = None, by: Actor = NOBODY) -> None:
        """Stop a trial that runs or waits; again, that changes nothing.

        Raises:
            NotFound: There is no such study or trial.
            Conflict: The trial has ended.
        """

        def work(connection: Connection) -> None:
            lock_study(connection, study_id)
            joined = t.trials.join(t.o_trials, t.o_trials.c.trial_id == t.trials.c.trial_id)
            mine = (t.trials.c.study_id == study_id) & (t.trials.c.number == number)
            query = select(t.trials.c.trial_id, t.trials.c.stop_asked_at, t.o_trials.c.state).select_from(joined).where(mine)
            trial = connection.execute(query).first()
            if trial is None:
                raise NotFound("trial", f"{study_id}/{number}")
            if trial.state.is_finished():
                raise Conflict(f"trial {number} of study {study_id} has ended already: it is {STATE_OF[trial.state]}")
            if trial.stop_asked_at is not None:
                return
            mark = update(t.trials).where(t.trials.c.trial_id == trial.trial_id)
            connection.execute(mark.values(stop_asked_at=self._database.now))
            what = {f"trials.{number}": (STATE_OF[trial.state], STOPPED)}
            put_on_record(connection, self._database, study_id, what, by)
            if trial.state is OptunaState.WAITING:
                end_trials(connection, study_id, [trial.trial_id], STOPPED, OptunaState.PRUNED)
                settle(connection, self._database, count(connection, study_id, waiting=-1, pruned=1, told=1))

        self._database.write_once(work, request)

    def asked(self, lease: Lease) -> frozenset[int]:
        """Ids of the trials that run under a lease and are to stop."""
        return frozenset(row.trial_id for row in self._database.alone(_ASKED, {"mine": lease.token}))

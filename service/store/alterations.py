"""Changing a locked study: what is sound of its priority and budget, what follows from it, and who did it; tags and notes.

What trials have in common can't be changed once one was asked, or they could not be compared. A finished study goes on where
it is given more to do; the time since its end does not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from service.errors import Changed, Conflict
from service.spec.nested import searches_in
from service.spec.parts import BudgetSpec
from service.store import tables as t
from service.store.actors import Actor, StudyChange
from service.store.bell import announce
from service.store.bulk import insert_many
from service.store.engine import Database
from service.store.happenings import happened
from service.store.records import SEARCHED, StudyState
from service.store.rows import deadline_passed, dumps, lock_study, set_state, settle

_What = dict[str, tuple[Any, Any]]
OPEN = (*SEARCHED, StudyState.PAUSED)
"""States of a study that is searched, or will be."""
OF_FINALS = ("seeds", "finalists")
"""Parts of a budget that matter after the search only."""


def check_revision(row: RowMapping, wanted: Sequence[int] | None) -> None:
    """Check that a locked study has one of the ``wanted`` revisions.

    Raises:
        Changed: Somebody has changed it.
    """
    if wanted is not None and row["revision"] not in wanted:
        raise Changed(f"study {row['study_id']} was changed since: read it again")


def put_on_record(
    connection: Connection, database: Database, study_id: int, what: Mapping[str, tuple[Any, Any]], by: Actor
) -> None:
    """Write down what was changed in a study: by name, what it was before and is now."""
    values = {"study_id": study_id, "at": database.now, "owner": by.owner, "token_id": by.token, "what": dumps(what)}
    connection.execute(insert(t.changes).values(values))
    mine = update(t.studies).where(t.studies.c.study_id == study_id)
    connection.execute(mine.values(revision=t.studies.c.revision + 1))
    if set(what) - {"state"}:
        happened(connection, study_id, "study.changed")


def alter(
    connection: Connection, database: Database, row: RowMapping, change: StudyChange, by: Actor, *, adding: bool = False
) -> None:
    """Change a study locked with its spec; ``adding`` as `Transitions.extend` does, which changes nothing else.

    Raises:
        Conflict: Something can't be changed now, with the reason.
    """
    spec = json.loads(row["spec"])
    _check_nested(row, spec, change)
    new = {**spec["budget"], "trials": row["budget_trials"], **change.budget}
    limits, told = _limits(row, spec, new, change), _told(spec, change)
    if limits and row["restored"] is not None:
        raise Conflict(f"study {row['study_id']} was restored from an archive, and does not go on; a replay begins anew")
    what = {**limits, **told}
    if not what:
        return
    if limits:
        _check(connection, row, limits, new, adding=adding)
    if "tags" in told:
        write_tags(connection, row["study_id"], told["tags"][1])
    reopened = bool(limits) and row["state"] == StudyState.FINISHED
    spec |= {name: then for name, (_, then) in told.items()}
    spec["budget"] |= change.budget
    spec["priority"] = row["priority"] if change.priority is None else change.priority
    values: dict[str, Any] = {"spec": dumps(spec), "priority": spec["priority"], "budget_trials": new["trials"]}
    values |= {"budget_seconds": BudgetSpec.model_validate(new).search_seconds}
    if reopened:
        values["started_at"] = database.now - (row["finished_at"] - row["started_at"])
        what["state"] = (row["state"], StudyState.QUEUED.value)
        connection.execute(delete(t.finals).where(t.finals.c.study_id == row["study_id"]))
        set_state(connection, database, row["study_id"], StudyState.QUEUED)
    connection.execute(update(t.studies).where(t.studies.c.study_id == row["study_id"]).values(values))
    announce(connection)
    put_on_record(connection, database, row["study_id"], what, by)
    settle(connection, database, lock_study(connection, row["study_id"]))


def _limits(row: RowMapping, spec: Mapping[str, Any], new: Mapping[str, Any], change: StudyChange) -> _What:
    """What changes of budget and priority."""
    budget = {**spec["budget"], "trials": row["budget_trials"]}
    what: _What = {f"budget.{name}": (budget.get(name), new[name]) for name in new if new[name] != budget.get(name)}
    if change.priority is not None and change.priority != row["priority"]:
        what["priority"] = (row["priority"], change.priority)
    return what


def _told(spec: Mapping[str, Any], change: StudyChange) -> _What:
    """What changes of tags and notes, which are for people only."""
    given = {"tags": None if change.tags is None else [*change.tags], "notes": change.notes}
    before = {"tags": spec.get("tags", []), "notes": spec.get("notes", "")}
    return {name: (before[name], then) for name, then in given.items() if then is not None and then != before[name]}


def write_tags(connection: Connection, study_id: int, tags: Sequence[str]) -> None:
    """Replace the tags of a study."""
    connection.execute(delete(t.tags).where(t.tags.c.study_id == study_id))
    insert_tags(connection, study_id, tags)


def insert_tags(connection: Connection, study_id: int, tags: Sequence[str]) -> None:
    """Insert the tags of a study that has none."""
    insert_many(connection, t.tags, [{"study_id": study_id, "tag": tag} for tag in tags])


def _check(
    connection: Connection, row: RowMapping, what: Mapping[str, Any], budget: Mapping[str, Any], *, adding: bool
) -> None:
    study, state = f"study {row['study_id']}", StudyState(row["state"])
    names = [name.removeprefix("budget.") for name in what if name.startswith("budget.")]
    if state not in (*OPEN, StudyState.FINISHED) and (names or state is not StudyState.FINALIZING):
        allowed = ", ".join((*OPEN, StudyState.FINISHED, *([] if names else [StudyState.FINALIZING])))
        raise Conflict(f"{study} is {state}; the request needs: {allowed}")
    if budget["trials"] < row["asked"]:
        raise Conflict(f"{study} has asked {row['asked']} trials already: budget.trials can't be {budget['trials']}")
    if "epochs" in names and (row["asked"] or _is_leased(connection, row["study_id"])):
        raise Conflict(
            f"{study} has begun with at most {_epochs(row)} epochs a trial, on which schedules and pruning depend: its "
            "trials could not be compared with others; submit a new study"
        )
    if adding or state is StudyState.FINISHED:
        _check_there_is_more(row, names, budget, study)


def _check_nested(row: RowMapping, spec: Mapping[str, Any], change: StudyChange) -> None:
    """Check that a change leaves the searches of nested validation as long as they are."""
    if "trials" in change.budget and searches_in(spec) > 1:
        raise Conflict(
            f"study {row['study_id']} has nested validation, with {spec['budget']['trials']} trials in each search: these "
            "can't be changed; submit a new study"
        )


def _check_there_is_more(row: RowMapping, names: Sequence[str], budget: Mapping[str, Any], study: str) -> None:
    """Check that a study with this budget goes on: with its search, or with finals of another size."""
    seconds = BudgetSpec.model_validate(budget).search_seconds
    now = row["now"] if row["finished_at"] is None else row["finished_at"]
    late = deadline_passed({**row, "budget_seconds": seconds, "now": now})
    if set(names) & set(OF_FINALS) or (row["asked"] < budget["trials"] and not late):
        return
    if late:
        raise Conflict(
            f"{study} has spent the {seconds:g} seconds of its time budget that are for searching; raise budget.seconds, or "
            "submit a new study"
        )
    raise Conflict(f"{study} is {row['state']}, and all of its {row['asked']} trials are done: raise budget.trials, too")


def _epochs(row: RowMapping) -> int:
    """The most epochs of a trial of a study."""
    return int(json.loads(row["spec"])["budget"]["epochs"])


def _is_leased(connection: Connection, study_id: int) -> bool:
    query = select(t.leases.c.token).where(t.leases.c.study_id == study_id)
    return connection.execute(query).first() is not None

"""What a study was computed from: kept as user attributes in Optuna's tables, so optuna-dashboard shows it. Thread-safe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from service.store import tables as t
from service.store.engine import Database
from service.store.rows import dumps, lock_study
from service.tracing import CARRIED

REPLAY_OF = "replay_of"
RESTORED_FROM = "restored_from"
_MADE_OF = "provenance"


@dataclass(frozen=True)
class Provenance:
    """Where a study's results come from.

    Attributes:
        replay_of: Id of the study that this one repeats; None if it repeats none.
        made_of: data_hash, rows, versions, device, threads and the plan of the search (its lanes, on which the order of
            asking and telling depends), as the first worker found them; None until then.
        restored_from: `id`, `name` and `owner` of the study whose archive it is from; None if it was searched here.
        carrier: The W3C context of the request that submitted it, where that was traced.
    """

    replay_of: int | None
    made_of: Mapping[str, Any] | None
    restored_from: Mapping[str, Any] | None = None
    carrier: Mapping[str, str] = field(default_factory=dict)


class Provenances:
    """Writes and reads the provenance of studies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, study_id: int) -> Provenance:
        """The provenance of one study; empty for an unknown study."""
        table = t.o_study_user
        wanted = (table.c.study_id == study_id) & table.c.key.in_((REPLAY_OF, RESTORED_FROM, _MADE_OF, CARRIED))
        query = select(table.c.key, table.c.value_json).where(wanted)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        found = {key: json.loads(text) for key, text in rows}
        carrier = {CARRIED: found[CARRIED]} if CARRIED in found else {}
        return Provenance(found.get(REPLAY_OF), found.get(_MADE_OF), found.get(RESTORED_FROM), carrier)

    def note(self, study_id: int, made_of: Mapping[str, Any], *, again: bool = False) -> bool:
        """Store ``made_of``, unless that has been done; ``again``: instead of what is stored. Returns whether it was stored.

        Raises:
            NotFound: There is no such study.
        """

        def work(connection: Connection) -> bool:
            lock_study(connection, study_id)
            table = t.o_study_user
            here = (table.c.study_id == study_id) & (table.c.key == _MADE_OF)
            if again:
                connection.execute(delete(table).where(here))
            there = select(table.c.key).where(here)
            if connection.execute(there).first() is None:
                row = {"study_id": study_id, "key": _MADE_OF, "value_json": dumps(made_of)}
                connection.execute(insert(table).values(row))
                return True
            return False

        return self._database.write(work)

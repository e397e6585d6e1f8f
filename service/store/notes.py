"""A study's note in optuna-dashboard: Markdown, split into attributes as the dashboard does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from service.store import tables as t
from service.store.rows import dumps

_PIECE = 2045
"""Most characters of a note in one of Optuna's attributes."""

_TEXT, _VERSION = "dashboard:note_str:", "dashboard:note_ver"
_RULE = "\n\n---\n\n"


def note_attributes(body: str, version: int = 1) -> Mapping[str, Any]:
    """The system attributes of a study that store a note."""
    pieces = [body[start : start + _PIECE] for start in range(0, len(body), _PIECE)]
    return {_VERSION: version, **{f"{_TEXT}{index}": piece for index, piece in enumerate(pieces)}}


def prepend_to_note(connection: Connection, study_id: int, text: str) -> None:
    """Prepend ``text`` to a study's note, replacing what was prepended before; in the caller's transaction."""
    table = t.o_study_system
    mine = (table.c.study_id == study_id) & (table.c.key.startswith(_TEXT) | (table.c.key == _VERSION))
    query = select(table.c.key, table.c.value_json).where(mine)
    found = {key: json.loads(value) for key, value in connection.execute(query)}
    version = int(found.pop(_VERSION, 0))
    body = "".join(found[key] for key in sorted(found, key=lambda key: int(key.removeprefix(_TEXT))))
    whole = text + _RULE + body.split(_RULE, maxsplit=1)[-1]
    connection.execute(delete(table).where(mine))
    rows = note_attributes(whole, version + 1).items()
    connection.execute(
        insert(table), [{"study_id": study_id, "key": key, "value_json": dumps(value)} for key, value in rows]
    )

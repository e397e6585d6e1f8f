"""Archives of trained models, one per study, in the database: the only storage that the API and all workers always share.

Only `workers.archive` knows their format; here they are bytes with a checksum. A worker makes ONNX models of them
afterwards, which are stored beside them. Thread-safe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, insert, or_, select, update

from service.errors import Conflict, NotFound, NotYet
from service.store import tables as t
from service.store.engine import Database
from service.store.rows import moment


@dataclass(frozen=True)
class ModelArchive:
    """A ZIP file that contains a trained model, and the SHA-256 of its bytes."""

    content: bytes
    sha256: str
    created_at: datetime | None


class ModelArchives:
    """The archives of finished studies; `Studies.finish` writes each together with the study's result."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, study_id: int) -> ModelArchive:
        """A study's archive.

        Raises:
            NotFound: There is no such study, or it has no archive.
        """
        table = t.model_archives.c
        row = self._row(study_id, table.content, table.sha256, table.created_at)
        return _archive(row)

    def onnx(self, study_id: int) -> bytes:
        """The same model as ONNX.

        Raises:
            NotFound: As `get`.
            NotYet: No worker has made it so far.
            Conflict: It can't be made, with the reason.
        """
        row = self._row(study_id, t.model_archives.c.onnx, t.model_archives.c.onnx_reason)
        if row["onnx_reason"] is not None:
            raise Conflict(f"study {study_id} has no ONNX model: {row['onnx_reason']}")
        if row["onnx"] is None:
            raise NotYet(f"the ONNX model of study {study_id} is not there yet: a worker with regsearch[onnx] is to make it")
        return bytes(row["onnx"])

    def keep_onnx(self, study_id: int, sha256: str, content: bytes | None, reason: str | None = None) -> None:
        """Store what became of the archive with this checksum: its ONNX model, or the reason why there is none.

        Nothing happens if the archive has been replaced or deleted meanwhile.
        """
        table = t.model_archives.c
        of_archive = update(t.model_archives).where(table.study_id == study_id, table.sha256 == sha256)
        self._database.write(lambda connection: connection.execute(of_archive.values(onnx=content, onnx_reason=reason)))

    def claim_onnx(self, seconds: float, modules: Sequence[str] = ()) -> tuple[int, ModelArchive] | None:
        """A study and its archive that has no ONNX model and no reason for that, the latest first; None if there is none.

        Of networks of the users' own only those of ``modules``, which the caller has.

        Nobody else is given it for ``seconds``; after that whoever took it must have died.
        """
        table, now = t.model_archives.c, self._database.now
        lacking = and_(table.onnx.is_(None), table.onnx_reason.is_(None))
        free = or_(table.onnx_begun_at.is_(None), table.onnx_begun_at < now - seconds)
        module = t.studies.c.module
        able = or_(module.is_(None), module.in_(modules))
        joined = t.model_archives.join(t.studies, t.studies.c.study_id == table.study_id)
        latest = (
            select(table.study_id).select_from(joined).where(lacking, free, able).order_by(table.created_at.desc()).limit(1)
        )
        if self._database.read(lambda connection: connection.execute(latest).scalar()) is None:
            return None  # as nearly always: without a writing transaction
        # Two that ask at once choose the same row, and the second then finds it no longer free.
        taken = update(t.model_archives).where(table.study_id == latest.scalar_subquery(), free).values(onnx_begun_at=now)
        wanted = taken.returning(table.study_id, table.content, table.sha256, table.created_at)
        row = self._database.write(lambda connection: connection.execute(wanted).mappings().first())
        return None if row is None else (row["study_id"], _archive(row))

    def _row(self, study_id: int, *columns: ColumnElement[Any]) -> RowMapping:
        query = select(*columns).where(t.model_archives.c.study_id == study_id)
        row = self._database.read(lambda connection: connection.execute(query).mappings().first())
        if row is None:
            raise NotFound("model of study", study_id)
        return row


def _archive(row: RowMapping) -> ModelArchive:
    return ModelArchive(bytes(row["content"]), row["sha256"], moment(row["created_at"]))


def replace_archive(connection: Connection, database: Database, study_id: int, content: bytes | None) -> None:
    """Replace a study's archive by ``content`` in the caller's transaction; None only deletes it."""
    connection.execute(delete(t.model_archives).where(t.model_archives.c.study_id == study_id))
    if content is not None:
        values = {"study_id": study_id, "content": content, "sha256": hashlib.sha256(content).hexdigest()}
        connection.execute(insert(t.model_archives).values({**values, "created_at": database.now}))

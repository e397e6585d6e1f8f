"""Rows of trained models: where each is among the objects, its hash and size, and what became of its ONNX model.

The contents are objects (`service.trained`), and only `workers.archive` knows their format. An object has a row from before
it is written: as a stray, until the transaction that needs it names it, and again once nothing names it any more. So what a
process that ends has written is found, and no database deletes what another one names. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, func, insert, or_, select, update

from service.errors import Conflict, NotFound, NotReady, NotYet
from service.store import tables as t
from service.store.bulk import insert_many, upsert_many
from service.store.engine import Database
from service.store.records import StoredObject
from service.store.rows import moment


@dataclass(frozen=True)
class ModelArchive:
    """The archive of a study, a ZIP file with its trained model."""

    study_id: int
    content: StoredObject
    created_at: datetime | None

    @property
    def sha256(self) -> str:
        """Of the file."""
        return self.content.sha256


class ModelArchives:
    """The archives of finished studies; `Studies.finish` names each in the transaction that stores the result."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, study_id: int) -> ModelArchive:
        """A study's archive.

        Raises:
            NotFound: There is no such study, or it has no archive.
        """
        return _archive(self._row(study_id))

    def onnx(self, study_id: int) -> StoredObject:
        """The same model as ONNX.

        Raises:
            NotFound: As `get`.
            NotYet: No worker has made it so far.
            Conflict: It can't be made, with the reason.
        """
        row = self._row(study_id)
        if row["onnx_reason"] is not None:
            raise Conflict(f"study {study_id} has no ONNX model: {row['onnx_reason']}")
        if row["onnx_size"] is None:
            raise NotYet(f"the ONNX model of study {study_id} is not there yet: a worker with regsearch[onnx] is to make it")
        return StoredObject(row["onnx_object"], row["onnx_sha256"] or "", row["onnx_size"])

    def keep_onnx(self, study_id: int, sha256: str, onnx: StoredObject | None, reason: str | None = None) -> None:
        """Note what became of the archive with this checksum: its ONNX model, or the reason why there is none.

        Nothing happens if the archive has been replaced or deleted meanwhile; the object is then left as a stray.

        Raises:
            NotReady: The object has been deleted as a stray.
        """
        table = t.model_archives.c
        of_archive = (table.study_id == study_id) & (table.sha256 == sha256)

        def work(connection: Connection) -> None:
            query = select(table.onnx_object).where(of_archive).with_for_update()
            row = connection.execute(query).mappings().first()
            if row is None or (onnx is not None and row["onnx_object"] == onnx.name):
                return
            condemn(connection, [row["onnx_object"]])
            values = {**_onnx_values(onnx), "onnx_reason": reason}
            connection.execute(update(t.model_archives).where(of_archive).values(values))
            name_object(connection, onnx)

        self._database.write(work)

    def claim_onnx(self, seconds: float, modules: Sequence[str] = ()) -> ModelArchive | None:
        """An archive that has no ONNX model and no reason for that, the latest first; None if there is none.

        Of networks of the users' own only those of ``modules``, which the caller has.

        Nobody else is given it for ``seconds``; after that whoever took it must have died.
        """
        table, now = t.model_archives.c, self._database.now
        lacking = and_(table.onnx_size.is_(None), table.onnx_reason.is_(None))
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
        wanted = taken.returning(*table)
        row = self._database.write(lambda connection: connection.execute(wanted).mappings().first())
        return None if row is None else _archive(row)

    def left(self, study_id: int | None = None) -> tuple[int, bytes, bytes | None] | None:
        """A study, its archive and its ONNX model that an earlier version has left in the database; of one study or any."""
        table = t.model_blobs.c
        query = select(table.study_id, table.content, table.onnx)
        one = select(table.study_id).order_by(func.random()).limit(1)  # others look at the same time
        query = query.where(table.study_id == (one.scalar_subquery() if study_id is None else study_id))
        row = self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else (row.study_id, bytes(row.content), None if row.onnx is None else bytes(row.onnx))

    def moved(self, study_id: int, archive: StoredObject, onnx: StoredObject | None) -> bool:
        """Note that what was left in the database is now in these objects; False if others have moved or deleted it.

        Raises:
            NotReady: An object has been deleted as a stray.
        """
        table = t.model_archives.c
        values = {"object": archive.name, "size": archive.size, **(_onnx_values(onnx) if onnx else {})}
        here = update(t.model_archives).where(table.study_id == study_id, table.object.is_(None)).values(values)

        def work(connection: Connection) -> bool:
            if not connection.execute(here).rowcount:
                return False
            name_object(connection, archive)
            name_object(connection, onnx)
            connection.execute(delete(t.model_blobs).where(t.model_blobs.c.study_id == study_id))
            return True

        return self._database.write(work)

    def announce(self, name: str) -> None:
        """An object of this name is about to be written."""
        row = {"name": name, "condemned": 0}
        self._database.write(lambda connection: upsert_many(connection, t.strays, [row], ("name",)))

    def strays(self, most: int) -> dict[str, bool]:
        """Names of objects that no study names, and whether they may be deleted at once."""
        query = select(t.strays).order_by(t.strays.c.condemned.desc(), t.strays.c.name).limit(most)
        return {row.name: bool(row.condemned) for row in self._database.alone(query)}

    def condemn(self, names: Collection[str]) -> list[str]:
        """Let no transaction name these strays any more; returns those of them that none has named."""
        of = t.strays.c.name.in_(sorted(names))
        condemned = update(t.strays).where(of).values(condemned=1).returning(t.strays.c.name)
        return [row.name for row in self._database.alone(condemned, reading=False)] if names else []

    def forget(self, names: Collection[str]) -> None:
        """These strays have been deleted."""
        if names:
            self._database.alone(delete(t.strays).where(t.strays.c.name.in_(sorted(names))), reading=False)

    def _row(self, study_id: int) -> RowMapping:
        query = select(t.model_archives).where(t.model_archives.c.study_id == study_id)
        row = self._database.read(lambda connection: connection.execute(query).mappings().first())
        if row is None:
            raise NotFound("model of study", study_id)
        return row


def _archive(row: RowMapping) -> ModelArchive:
    content = StoredObject(row["object"], row["sha256"], row["size"])
    return ModelArchive(row["study_id"], content, moment(row["created_at"]))


def archive_values(archive: StoredObject, onnx: StoredObject | None = None) -> dict[str, Any]:
    """The columns of a row that tell where its objects are."""
    return {"object": archive.name, "sha256": archive.sha256, "size": archive.size, **_onnx_values(onnx)}


def _onnx_values(onnx: StoredObject | None) -> dict[str, Any]:
    if onnx is None:
        return dict.fromkeys(("onnx_object", "onnx_sha256", "onnx_size"))
    return {"onnx_object": onnx.name, "onnx_sha256": onnx.sha256, "onnx_size": onnx.size}


def replace_archive(connection: Connection, database: Database, study_id: int, archive: StoredObject | None) -> None:
    """Replace a study's archive in the caller's transaction; None only deletes it.

    Raises:
        NotReady: The new object has been deleted as a stray.
    """
    table = t.model_archives.c
    gone = delete(t.model_archives).where(table.study_id == study_id).returning(table.object, table.onnx_object)
    for names in connection.execute(gone).all():
        condemn(connection, names)
    connection.execute(delete(t.model_blobs).where(t.model_blobs.c.study_id == study_id))
    if archive is not None:
        values = {"study_id": study_id, **archive_values(archive), "created_at": database.now}
        connection.execute(insert(t.model_archives).values(values))
        name_object(connection, archive)


def name_object(connection: Connection, stored: StoredObject | None) -> None:
    """An object is no stray any more: the caller's transaction names it.

    Raises:
        NotReady: It has been deleted as a stray, as it was not named for long.
    """
    if stored is None:
        return
    mine = (t.strays.c.name == stored.name) & (t.strays.c.condemned == 0)
    if not connection.execute(delete(t.strays).where(mine)).rowcount:
        raise NotReady(f"{stored.name} was written too long ago, and has been deleted: it has to be written again")


def condemn(connection: Connection, names: Collection[str | None]) -> None:
    """The caller's transaction names these objects no more; they may be deleted at once."""
    insert_many(connection, t.strays, [{"name": name, "condemned": 1} for name in names if name is not None])

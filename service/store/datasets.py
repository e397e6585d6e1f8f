"""Records of uploaded data sets; their files are stored in `service.datasets.files`. Thread-safe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, select, true

from service.errors import Conflict, NotFound
from service.store import tables as t
from service.store.engine import Database, upsert
from service.store.records import ENDED, DatasetRecord
from service.store.rows import dumps, moment
from service.store.usage import NO_QUOTAS, Quotas, check_quotas

DEFAULT_OWNER = "default"
"""Whose everything is where there are no tokens."""


class Datasets:
    """Records of uploaded data sets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: DatasetRecord, owner: str | None = DEFAULT_OWNER, quotas: Quotas = NO_QUOTAS) -> DatasetRecord:
        """Register a data set of an owner; None for one that is there already, and only described anew.

        The same content uploaded again is the same data set, under its latest name.

        Raises:
            QuotaExceeded: Its owner would keep more than the ``quotas`` allow.
        """
        quotas = Quotas(size=quotas.size)
        values: dict[str, Any] = {
            "name": record.name,
            "filename": record.filename,
            "format": record.format,
            "size": record.size,
            "rows": record.rows,
            "shape": dumps(record.shape),
            "columns": dumps(record.columns),
            "sheet": dumps(record.sheet),
        }

        def work(connection: Connection) -> None:
            made = upsert(connection, t.datasets).values({**values, "id": record.id, "created_at": self._database.now})
            connection.execute(made.on_conflict_do_update(index_elements=["id"], set_=values))
            if owner is not None:
                mine = upsert(connection, t.dataset_owners)
                mine = mine.values(dataset_id=record.id, owner=owner, created_at=self._database.now)
                connection.execute(mine.on_conflict_do_nothing())
                check_quotas(connection, owner, quotas)

        self._database.write(work)
        return self.get(record.id)

    def get(self, dataset_id: str, owner: str | None = None) -> DatasetRecord:
        """One data set, of anybody or of an ``owner``.

        Raises:
            NotFound: There is no such data set.
        """
        query = select(t.datasets).where(t.datasets.c.id == dataset_id)
        if owner is not None:
            query = query.where(t.datasets.c.id.in_(_of(owner)))
        row = self._database.read(lambda connection: connection.execute(query).mappings().first())
        if row is None:
            raise NotFound("data set", dataset_id)
        return _dataset(row)

    def delete(self, dataset_id: str, owner: str | None = None) -> DatasetRecord | None:
        """Forget a data set, or only that it is an ``owner``'s while others have it.

        Returns:
            What was forgotten, whose file is the caller's; None if others have it.

        Raises:
            NotFound: There is no such data set.
            Conflict: A study that has not ended uses it.
        """
        s, o = t.studies, t.dataset_owners
        of_it, others = o.c.dataset_id == dataset_id, true() if owner is None else o.c.owner != owner

        def work(connection: Connection) -> tuple[int | None, bool]:
            kept = owner is not None and connection.execute(select(o.c.owner).where(of_it, others)).first() is not None
            whose = [] if not kept else [s.c.owner == owner]
            uses = select(s.c.study_id).where(s.c.dataset_id == dataset_id, s.c.state.not_in(ENDED), *whose).limit(1)
            user = connection.execute(uses).scalar()
            if user is None and kept:
                connection.execute(delete(o).where(of_it, o.c.owner == owner))
            elif user is None:
                connection.execute(delete(o).where(of_it))
                connection.execute(delete(t.datasets).where(t.datasets.c.id == dataset_id))
            return user, kept

        record = self.get(dataset_id)
        user, kept = self._database.write(work)
        if user is not None:
            raise Conflict(f"study {user} uses the data set {dataset_id!r} and has not ended")
        return None if kept else record

    def list(self, owner: str | None = None) -> Sequence[DatasetRecord]:
        """All data sets, or those of an ``owner``, newest first."""
        query = select(t.datasets).order_by(t.datasets.c.created_at.desc(), t.datasets.c.id)
        if owner is not None:
            query = query.where(t.datasets.c.id.in_(_of(owner)))
        rows = self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [_dataset(row) for row in rows]


def _of(owner: str) -> Select[tuple[str]]:
    """The ids of an owner's data sets."""
    return select(t.dataset_owners.c.dataset_id).where(t.dataset_owners.c.owner == owner)


def _dataset(row: RowMapping) -> DatasetRecord:
    return DatasetRecord(
        id=row["id"],
        name=row["name"],
        filename=row["filename"],
        format=row["format"],
        size=row["size"],
        rows=row["rows"],
        shape=tuple(json.loads(row["shape"])),
        columns=tuple(json.loads(row["columns"])),
        sheet=json.loads(row["sheet"]) if row["sheet"] else None,
        created_at=moment(row["created_at"]),
    )

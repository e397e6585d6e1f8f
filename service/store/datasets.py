"""Records of uploaded data sets; their files are stored in `service.datasets.files`. Thread-safe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select

from service.errors import Conflict, NotFound
from service.store import tables as t
from service.store.engine import Database, upsert
from service.store.records import ENDED, DatasetRecord
from service.store.rows import dumps, moment


class Datasets:
    """Records of uploaded data sets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: DatasetRecord) -> DatasetRecord:
        """Register a data set. The same content uploaded again is the same data set, under its latest name."""
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

        self._database.write(work)
        return self.get(record.id)

    def get(self, dataset_id: str) -> DatasetRecord:
        """One data set.

        Raises:
            NotFound: There is no such data set.
        """
        query = select(t.datasets).where(t.datasets.c.id == dataset_id)
        row = self._database.read(lambda connection: connection.execute(query).mappings().first())
        if row is None:
            raise NotFound("data set", dataset_id)
        return _dataset(row)

    def delete(self, dataset_id: str) -> DatasetRecord:
        """Forget a data set; its file is the caller's.

        Raises:
            NotFound: There is no such data set.
            Conflict: A study that has not ended uses it.
        """
        s = t.studies

        def work(connection: Connection) -> int | None:
            uses = select(s.c.study_id).where(s.c.dataset_id == dataset_id, s.c.state.not_in(ENDED)).limit(1)
            user = connection.execute(uses).scalar()
            if user is None:
                connection.execute(delete(t.datasets).where(t.datasets.c.id == dataset_id))
            return user

        record = self.get(dataset_id)
        user = self._database.write(work)
        if user is not None:
            raise Conflict(f"study {user} uses the data set {dataset_id!r} and has not ended")
        return record

    def list(self) -> Sequence[DatasetRecord]:
        """All data sets, newest first."""
        query = select(t.datasets).order_by(t.datasets.c.created_at.desc(), t.datasets.c.id)
        rows = self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [_dataset(row) for row in rows]


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

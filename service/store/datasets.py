"""Records of data sets that people have given; their files are stored in `service.datasets.uploads`. Thread-safe.

The same content is one data set, of all owners that have it. Its name and where it is from are each owner's own, and not
shown to others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, exists, func, or_, select, true

from service.errors import Conflict, NotFound
from service.store import tables as t
from service.store.engine import Database, upsert
from service.store.records import ENDED, DatasetRecord, Version
from service.store.rows import dumps, moment
from service.store.sharing import EVERYBODY, datasets_given_to
from service.store.usage import NO_QUOTAS, Quotas, check_quotas

DEFAULT_OWNER = "default"
"""Whose everything is where there are no tokens."""


class Datasets:
    """Records of data sets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: DatasetRecord, owner: str | None = DEFAULT_OWNER, quotas: Quotas = NO_QUOTAS) -> DatasetRecord:
        """Register a data set of an owner; None for one that is there already, and only described anew.

        The same content given again is the same data set, under its owner's latest name and source.

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
            "sha256": record.sha256,
        }
        own = {"name": record.name, "source": dumps(record.source)}

        def work(connection: Connection) -> None:
            made = upsert(connection, t.datasets).values({**values, "id": record.id, "created_at": self._database.now})
            connection.execute(made.on_conflict_do_update(index_elements=["id"], set_=values))
            if owner is not None:
                mine = upsert(connection, t.dataset_owners)
                mine = mine.values(dataset_id=record.id, owner=owner, created_at=self._database.now, **own)
                connection.execute(mine.on_conflict_do_update(index_elements=["dataset_id", "owner"], set_=own))
                check_quotas(connection, owner, quotas)

        self._database.write(work)
        return self.get(record.id, owner)

    def get(self, dataset_id: str, owner: str | None = None) -> DatasetRecord:
        """One data set, of anybody, or one that an ``owner`` may see.

        Raises:
            NotFound: There is no such data set.
        """
        found = self._found(select(t.datasets).where(t.datasets.c.id == dataset_id), owner)
        if not found:
            raise NotFound("data set", dataset_id)
        return found[0]

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
        """All data sets, or those that an ``owner`` may see, newest first."""
        return self._found(select(t.datasets).order_by(t.datasets.c.created_at.desc(), t.datasets.c.id), owner)

    def versions(self, name: str, owner: str) -> Sequence[Version]:
        """The data sets to which an owner gave the same name, newest first."""
        o = t.dataset_owners
        named = func.coalesce(o.c.name, t.datasets.c.name) == name
        query = select(o.c.dataset_id, o.c.created_at).join(t.datasets, t.datasets.c.id == o.c.dataset_id)
        query = query.where(o.c.owner == owner, named).order_by(o.c.created_at.desc(), o.c.dataset_id)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [Version(row.dataset_id, datetime.fromtimestamp(row.created_at, UTC)) for row in rows]

    def _found(self, query: Select[Any], owner: str | None) -> Sequence[DatasetRecord]:
        """The data sets of a query that an owner has or is given, or of anybody."""
        o, shares = t.dataset_owners, t.dataset_shares
        having = select(o).order_by(o.c.created_at.desc(), o.c.owner)
        if owner is not None:
            ids = t.datasets.c.id
            query = query.where(or_(ids.in_(_of(owner)), ids.in_(datasets_given_to(owner))))
            here = (shares.c.dataset_id == o.c.dataset_id) & (shares.c.giver == o.c.owner)
            given = exists().where(here, shares.c.owner.in_((owner, EVERYBODY)))
            having = having.where(or_(o.c.owner == owner, given)).order_by(None)
            having = having.order_by(o.c.owner != owner, o.c.created_at.desc(), o.c.owner)
        having = having.where(o.c.dataset_id.in_(query.with_only_columns(t.datasets.c.id).order_by(None)))

        def work(connection: Connection) -> tuple[Sequence[RowMapping], Sequence[RowMapping]]:
            rows = connection.execute(query).mappings().all()
            return rows, connection.execute(having).mappings().all()

        rows, owners = self._database.read(work)
        of: dict[str, list[RowMapping]] = {}
        for each in owners:
            of.setdefault(each["dataset_id"], []).append(each)
        return [_dataset(row, of.get(row["id"], []), owner) for row in rows]


def _of(owner: str) -> Select[tuple[str]]:
    """The ids of an owner's data sets."""
    return select(t.dataset_owners.c.dataset_id).where(t.dataset_owners.c.owner == owner)


def _dataset(row: RowMapping, owners: Sequence[RowMapping], reader: str | None) -> DatasetRecord:
    """A data set as its ``reader`` calls it, else as the one does who has it most recently, whose source is not told."""
    own: Any = owners[0] if owners else {"name": None, "source": None, "created_at": row["created_at"]}
    source = own["source"] if owners and reader in (None, own["owner"]) else None
    return DatasetRecord(
        id=row["id"],
        name=own["name"] or row["name"],
        filename=row["filename"],
        format=row["format"],
        size=row["size"],
        rows=row["rows"],
        shape=tuple(json.loads(row["shape"])),
        columns=tuple(json.loads(row["columns"])),
        sheet=json.loads(row["sheet"]) if row["sheet"] else None,
        created_at=moment(own["created_at"]),
        sha256=row["sha256"],
        source=json.loads(source) if source else {"file": row["filename"]},
        owners=tuple(each["owner"] for each in owners),
    )

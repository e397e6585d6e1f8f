"""Whom owners let see what is theirs: studies and data sets, to be read only, until they change their mind. Thread-safe."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, or_, select

from service.errors import NotFound
from service.store import tables as t
from service.store.actors import NOBODY, Actor
from service.store.alterations import put_on_record
from service.store.engine import Database
from service.store.rows import lock_study

EVERYBODY = ""
"""Stands for all owners, whose names are not empty."""
Reach = Literal["own", "shared"] | None


class Sharing:
    """Who sees whose studies and data sets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_study(self, study_id: int) -> Sequence[str]:
        """With whom a study is shared."""
        query = select(t.study_shares.c.owner).where(t.study_shares.c.study_id == study_id).order_by(t.study_shares.c.owner)
        return self._database.read(lambda connection: connection.execute(query).scalars().all())

    def share_study(self, study_id: int, owners: Collection[str], by: Actor = NOBODY) -> None:
        """Share a study with these owners and nobody else; that is on record.

        Raises:
            NotFound: There is no such study.
        """
        table = t.study_shares
        mine = table.c.study_id == study_id

        def work(connection: Connection) -> None:
            lock_study(connection, study_id)
            before = sorted(connection.execute(select(table.c.owner).where(mine)).scalars())
            if before != sorted(owners):
                connection.execute(delete(table).where(mine))
                if owners:
                    connection.execute(insert(table), [{"study_id": study_id, "owner": owner} for owner in owners])
                put_on_record(connection, self._database, study_id, {"shared": (before, sorted(owners))}, by)

        self._database.write(work)

    def of_dataset(self, dataset_id: str, giver: str) -> Sequence[str]:
        """With whom an owner of a data set shares it."""
        table = t.dataset_shares
        query = select(table.c.owner).where(table.c.dataset_id == dataset_id, table.c.giver == giver).order_by(table.c.owner)
        return self._database.read(lambda connection: connection.execute(query).scalars().all())

    def share_dataset(self, dataset_id: str, giver: str, owners: Collection[str]) -> None:
        """Share a data set of an owner with these owners and nobody else.

        Raises:
            NotFound: The owner has no such data set.
        """
        table = t.dataset_shares
        has = (t.dataset_owners.c.dataset_id == dataset_id) & (t.dataset_owners.c.owner == giver)
        rows = [{"dataset_id": dataset_id, "giver": giver, "owner": owner} for owner in sorted(owners)]

        def work(connection: Connection) -> None:
            if connection.execute(select(t.dataset_owners.c.owner).where(has)).first() is None:
                raise NotFound("data set", dataset_id)
            connection.execute(delete(table).where(table.c.dataset_id == dataset_id, table.c.giver == giver))
            if rows:
                connection.execute(insert(table), rows)

        self._database.write(work)

    def reach_of_study(self, study_id: int, owner: str) -> Reach:
        """Whether a study is an owner's own, or shared with it; None where it does not exist for it."""
        query = select(t.studies.c.owner).where(t.studies.c.study_id == study_id, seen_by(owner))
        found = self._database.read(lambda connection: connection.execute(query).scalar())
        return None if found is None else "own" if found == owner else "shared"

    def reach_of_dataset(self, dataset_id: str, owner: str) -> Reach:
        """The same of a data set."""
        own = t.dataset_owners.c.owner == owner

        def work(connection: Connection) -> Reach:
            mine = select(t.dataset_owners.c.owner).where(t.dataset_owners.c.dataset_id == dataset_id, own)
            if connection.execute(mine).first() is not None:
                return "own"
            given = datasets_given_to(owner).where(t.dataset_shares.c.dataset_id == dataset_id)
            return "shared" if connection.execute(given).first() is not None else None

        return self._database.read(work)


def seen_by(owner: str) -> ColumnElement[bool]:
    """Whether an owner may see a row of `rs_studies`."""
    shared = select(t.study_shares.c.study_id).where(t.study_shares.c.owner.in_((owner, EVERYBODY)))
    return or_(t.studies.c.owner == owner, t.studies.c.study_id.in_(shared))


def datasets_given_to(owner: str) -> Select[tuple[str]]:
    """The ids of data sets that others share with an owner."""
    return select(t.dataset_shares.c.dataset_id).where(t.dataset_shares.c.owner.in_((owner, EVERYBODY)))


def shared_with(connection: Connection, study_ids: Iterable[int]) -> dict[int, frozenset[str]]:
    """With whom each of some studies is shared."""
    table = t.study_shares
    found: dict[int, set[str]] = {}
    query = select(table.c.study_id, table.c.owner).where(table.c.study_id.in_(set(study_ids)))
    for study_id, owner in connection.execute(query):
        found.setdefault(study_id, set()).add(owner)
    return {study_id: frozenset(owners) for study_id, owners in found.items()}

"""What owners use, and quotas on it. Thread-safe.

A quota is checked after a change, in the same transaction, which is undone where it is exceeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, func, select, text

from service.errors import QuotaExceeded, TooMany
from service.store import tables as t
from service.store.engine import Database
from service.store.records import ENDED

RETRY_SECONDS = 60
"""After which a request may be sent again that was refused as an owner has too much open."""
_QUOTA_LOCK = 0x7265_6771


@dataclass(frozen=True)
class Quotas:
    """The most that one owner may have; None for no limit.

    ``running`` is of studies that have not ended, ``trials`` of the trials that they have left, ``size`` in bytes of data
    sets and models.
    """

    running: int | None = None
    trials: int | None = None
    size: int | None = None


NO_QUOTAS = Quotas()


@dataclass(frozen=True)
class OwnerUsage:
    """What an owner uses: studies in all and such that have not ended, trials that these have left and trials finished in
    all, epochs trained in finished trials, bytes of data sets and of models.
    """

    owner: str
    studies: int = 0
    running: int = 0
    trials_left: int = 0
    trials: int = 0
    epochs: int = 0
    dataset_bytes: int = 0
    model_bytes: int = 0

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.dataset_bytes + self.model_bytes


class Usage:
    """Operations on usage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, owner: str) -> OwnerUsage:
        """That of one owner, who may have nothing."""
        return self._database.read(lambda connection: _usage(connection, owner))

    def all(self) -> Sequence[OwnerUsage]:
        """That of everybody who has something, by name."""
        return self._database.read(lambda connection: [each for _, each in sorted(_found(connection, None).items())])


def check_quotas(connection: Connection, owner: str, quotas: Quotas) -> None:
    """Check what an owner has after the changes of this transaction. Owners' changes are checked one after the other.

    Raises:
        TooMany: It has too many studies or trials open.
        QuotaExceeded: It keeps too much.
    """
    if quotas == NO_QUOTAS:
        return
    if connection.dialect.name != "sqlite":  # where a writer is alone
        lock = {"key": _QUOTA_LOCK, "owner": owner}
        connection.execute(text("SELECT pg_advisory_xact_lock(:key, hashtext(:owner))"), lock)
    used = _usage(connection, owner)
    for has, most, what in (
        (used.running, quotas.running, "studies that have not ended"),
        (used.trials_left, quotas.trials, "trials left in its studies"),
    ):
        if most is not None and has > most:
            raise TooMany(f"{owner} would have {has} {what}; its quota is {most}", RETRY_SECONDS)
    if quotas.size is not None and used.size > quotas.size:
        raise QuotaExceeded(
            f"{owner} would keep {used.size} bytes of data sets and models; its quota is {quotas.size}: delete some first"
        )


def _usage(connection: Connection, owner: str) -> OwnerUsage:
    return _found(connection, owner).get(owner, OwnerUsage(owner))


def _found(connection: Connection, owner: str | None) -> dict[str, OwnerUsage]:
    """Usage by owner, of one or of all."""
    s, d, own = t.studies, t.datasets, t.dataset_owners
    finished = s.c.complete + s.c.pruned + s.c.fail
    is_open = s.c.state.not_in(ENDED)
    left = case((is_open & (s.c.budget_trials > finished), s.c.budget_trials - finished), else_=0)
    of_studies = select(
        s.c.owner,
        func.count().label("studies"),
        func.sum(case((is_open, 1), else_=0)).label("running"),
        func.sum(left).label("trials_left"),
        func.sum(finished).label("trials"),
        func.sum(s.c.epochs).label("epochs"),
    ).group_by(s.c.owner)
    joined = own.join(d, d.c.id == own.c.dataset_id)
    of_data = select(own.c.owner, func.sum(d.c.size).label("dataset_bytes")).select_from(joined).group_by(own.c.owner)
    m = t.model_archives
    size = m.c.size + func.coalesce(m.c.onnx_size, 0)
    kept = m.join(s, s.c.study_id == m.c.study_id)
    of_models = select(s.c.owner, func.sum(size).label("model_bytes")).select_from(kept).group_by(s.c.owner)
    parts: dict[str, dict[str, Any]] = {}
    for query, column in ((of_studies, s.c.owner), (of_data, own.c.owner), (of_models, s.c.owner)):
        mine = query if owner is None else query.where(column == owner)
        for row in connection.execute(mine).mappings():
            parts.setdefault(row["owner"], {}).update(_numbers(row))
    return {name: OwnerUsage(name, **values) for name, values in parts.items()}


def _numbers(row: Mapping[Any, Any]) -> dict[str, int]:
    return {name: int(value or 0) for name, value in row.items() if name != "owner"}

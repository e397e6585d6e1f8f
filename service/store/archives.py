"""Archives of trained models, one per study, in the database: the only storage that the API and all workers always share.

Only `workers.archive` knows their format; here they are bytes with a checksum. Thread-safe.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from service.errors import NotFound
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
        query = select(t.model_archives).where(t.model_archives.c.study_id == study_id)
        row = self._database.read(lambda connection: connection.execute(query).mappings().first())
        if row is None:
            raise NotFound("model of study", study_id)
        return ModelArchive(bytes(row["content"]), row["sha256"], moment(row["created_at"]))


def replace_archive(connection: Connection, database: Database, study_id: int, content: bytes | None) -> None:
    """Replace a study's archive by ``content`` in the caller's transaction; None only deletes it."""
    connection.execute(delete(t.model_archives).where(t.model_archives.c.study_id == study_id))
    if content is not None:
        values = {"study_id": study_id, "content": content, "sha256": hashlib.sha256(content).hexdigest()}
        connection.execute(insert(t.model_archives).values({**values, "created_at": database.now}))

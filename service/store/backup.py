"""A copy of an embedded database while it is in use, by SQLite's online backup."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from service.atomic import PART, sync_folder
from service.errors import Conflict, DatabaseUnavailable
from service.store.engine import normalize
from service.store.place import FileGone, connect_to, file_of
from service.store.schema import VERSION_TABLE


def back_up(url: str, to: Path) -> int:
    """Copy the database into a new file, as it is at one moment; nobody has to stop. Returns the size in bytes.

    Raises:
        Conflict: It is not embedded, or the file is there already.
        DatabaseUnavailable: There is no database, or the copy is damaged.
        OSError: The file can't be written; nothing is left of it.
    """
    source = file_of(normalize(url))
    if source is None:
        raise Conflict("only an SQLite file is backed up so; of PostgreSQL use pg_dump --format=custom")
    if to.exists():
        raise Conflict(f"{to} is there already")
    part = to.with_name(f"{to.name}{PART}")
    try:
        with closing(connect_to(source)) as reading, closing(sqlite3.connect(part)) as writing:
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            (found,) = writing.execute("PRAGMA integrity_check").fetchone()
            if found != "ok":
                raise DatabaseUnavailable(f"the copy of {source} is damaged, and so may the database be: {found}")
            writing.execute(f"SELECT 1 FROM {VERSION_TABLE}")
        part.replace(to)
    except FileGone as error:
        raise DatabaseUnavailable(str(error)) from None
    except sqlite3.OperationalError as error:
        raise DatabaseUnavailable(f"{source} can't be copied to {to}: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    sync_folder(to.absolute().parent)
    return to.stat().st_size

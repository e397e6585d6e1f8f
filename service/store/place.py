"""Where the file of an embedded database is: never made anew in place of one that was moved away.

SQLite makes a file for every name that it is asked to open, and connections to a file that was moved go on writing to it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import URL


class FileGone(sqlite3.OperationalError):
    """The file of the database is not where it was."""


def file_of(url: URL) -> Path | None:
    """The file of an SQLite database; None for one in memory, for other databases, and for SQLite's own URIs."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


def connect_to(path: Path, **options: Any) -> sqlite3.Connection:
    """Connect to a file that is there.

    Raises:
        FileGone: It is not.
    """
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"
        made: sqlite3.Connection = sqlite3.connect(uri, uri=True, check_same_thread=False, **options)
    except sqlite3.OperationalError as error:
        if path.exists():
            raise
        raise FileGone(f"there is no database file {path}") from error
    return made


class Place:
    """Notices that the file at a path is gone, or is another one than before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[int, int] | None = None

    def changed(self) -> bool:
        """Whether another file is at the path since the last call.

        Raises:
            FileGone: There is none.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            raise FileGone(f"there is no database file {self._path}") from None
        before, self._known = self._known, (found.st_dev, found.st_ino)
        return before not in (None, self._known)

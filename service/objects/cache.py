"""Copies of objects on this machine, within a limit: those used longest ago go first.

Processes that share the directory hold a lock (`flock`) on a copy while they read it, and none is removed that is held.
The lock belongs to the file, not to its name, so whoever opens a copy looks once more whether it still has the name.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.atomic import PART, sweep_parts


class Cache:
    """A directory with copies of at most ``most`` bytes together, besides those that are in use."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory
        self._most = most

    @contextmanager
    def holding(self, name: str, fetch: Callable[[Path], None]) -> Iterator[Path]:
        """The copy of an object, which stays for the block; ``fetch`` fills an empty file where there is none.

        Raises:
            OSError: There is no room for it. So does whatever ``fetch`` raises, after which nothing is left.
        """
        path = self._directory / name
        handle = _lock(path)
        while handle is None:
            handle = self._fetched(path, fetch) or _lock(path)
        try:
            os.utime(path)
            yield path
        finally:
            os.close(handle)
            self.trim()

    def drop(self, name: str) -> None:
        """Remove a copy; who reads it goes on with it if the file is open."""
        (self._directory / name).unlink(missing_ok=True)

    def trim(self, most: int | None = None) -> None:
        """Remove copies that nobody holds until the limit, or ``most`` bytes, is kept."""
        copies = []
        for path in self._directory.glob("*/*"):
            with suppress(FileNotFoundError):
                found = path.stat()
                if path.is_file() and path.suffix != PART:
                    copies.append((found.st_mtime_ns, found.st_size, path))
        surplus = sum(size for _, size, _ in copies) - (self._most if most is None else most)
        for _, size, path in sorted(copies):
            if surplus <= 0:
                return
            if _removed(path):
                surplus -= size

    def sweep(self) -> None:
        """Remove what was fetched in part by processes that have ended."""
        for folder in self._directory.glob("*"):
            sweep_parts(folder)

    def _fetched(self, path: Path, fetch: Callable[[Path], None]) -> int | None:
        """Fetch a copy; returns the lock on it, or None if another process was quicker."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=PART)
        part = Path(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)  # before others can see it
            fetch(part)
            os.link(part, path)
        except FileExistsError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        finally:
            part.unlink(missing_ok=True)
        return handle


def _lock(path: Path) -> int | None:
    """A shared lock on the file that has a name; None if none has."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    fcntl.flock(handle, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    os.close(handle)
    return None


def _removed(path: Path) -> bool:
    """Remove a copy unless somebody holds it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True

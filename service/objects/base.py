"""What every store of objects can do, and how it fails."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, ClassVar

from service.errors import NotReady, RegsearchError


class ObjectsUnavailable(NotReady):
    """The store of objects can't be reached, or refuses; the same may succeed later."""


class OtherContent(RegsearchError):
    """An object is not what was stored under its name."""


class Objects(ABC):
    """Objects by name, `folder/file`. Thread-safe, and safe with any number of processes.

    All methods raise `ObjectsUnavailable` where the store does not answer.
    """

    remote: ClassVar[bool]
    """Whether workers get by it what is only on the machine of the API."""

    @abstractmethod
    def arriving(self, folder: str) -> AbstractContextManager[Path]:
        """A directory of this machine in which a file gets its whole content and its name, before it is `put`."""

    @abstractmethod
    def put(self, name: str, path: Path, *, new: bool = True) -> bool:
        """Store a whole file under a name that has a hash of its content; nothing happens if it is there already.

        Args:
            name: The object's.
            path: The file, which stays.
            new: Whether the file is new in its directory, which a store that is this directory can't see any more.

        Returns:
            Whether the object was not there before.
        """

    @abstractmethod
    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Have ``write`` make the object, in place of the one before, which stays until all of the new one is there.

        Raises:
            OSError: There is no room on this machine; nothing has changed.
        """

    @abstractmethod
    def reading(self, name: str, digest: str = "") -> AbstractContextManager[Path]:
        """A file of this machine with the object's content, which is there for the block. It must not be changed.

        Args:
            name: The object's.
            digest: The first hexadecimal digits of its SHA-256, if it never changes.

        Raises:
            FileNotFoundError: There is no such object.
            OtherContent: It has another hash.
            StorageFull: This machine has no room for a copy.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""

    @abstractmethod
    def names(self, folder: str) -> Sequence[str]:
        """The names of all objects of a folder, in no certain order."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove what was written in part by processes that have ended, an hour ago at the earliest."""

    @abstractmethod
    def check(self) -> str:
        """Write, read and delete an object; returns where that was."""


_FOUND: dict[str, tuple[Path, int, int, int, int, int]] = {}
"""The state in which this process has found a file to have a hash."""


def has_digest(path: Path, digest: str) -> bool:
    """Whether the SHA-256 of a file begins with these hexadecimal digits.

    A process reads the content again when the file has been written or moved since, for which the system keeps a time.
    """
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        key = (path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if _FOUND.get(digest) == key:
            return True
        _FOUND.pop(digest, None)
        if not hashlib.file_digest(file, "sha256").hexdigest().startswith(digest):
            return False
    _FOUND[digest] = key
    return True

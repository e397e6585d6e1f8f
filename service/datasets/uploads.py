"""Uploaded files on disk: written once, and named by a hash of their content, which the id of a data set verifies."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.atomic import FULL, PART, sync_folder
from service.datasets.tables import ENDINGS, FORMATS
from service.errors import InvalidInput, StorageFull, TooLarge
from service.objects import Objects, OtherContent

FOLDER = "datasets"
_CHUNK = 1 << 20
_DIGITS = 16


@dataclass(frozen=True)
class StoredFile:
    """A file named by its ``id``, the first 16 hexadecimal digits of its ``sha256``; ``size`` is in bytes.

    ``new`` is false where the same content was stored before.
    """

    sha256: str
    path: Path
    size: int
    format: str
    new: bool

    @property
    def id(self) -> str:
        """See above."""
        return self.sha256[:_DIGITS]

    @property
    def name(self) -> str:
        """Its name among all objects."""
        return object_name(self.id, self.format)


def file_format(filename: str, field: str) -> str:
    """The format according to a file's ending; ``.csv.gz`` and ``.tsv`` are CSV as well, ``.arrow`` is Feather.

    Raises:
        InvalidInput: The ending is not one of `FORMATS`.
    """
    name = filename.lower()
    ending = "csv" if name.endswith((".csv.gz", ".tsv.gz")) else Path(name).suffix.lstrip(".")
    ending = ENDINGS.get(ending, ending)
    if ending not in FORMATS:
        raise InvalidInput.one(field, f"has the ending {ending!r}", value=filename, allowed=", ".join(FORMATS))
    return ending


def object_name(dataset_id: str, ending: str) -> str:
    """The name of an uploaded data set among all objects."""
    return f"{FOLDER}/{dataset_id}.{ending}"


def save_upload(stream: BinaryIO, filename: str, directory: Path, max_bytes: int) -> StoredFile:
    """Copy a stream to disk; the client's file name determines the format, but never the path.

    Raises:
        TooLarge: The stream is longer than ``max_bytes``; nothing is stored.
        InvalidInput: The file's ending is not that of a supported format.
        StorageFull: The disk is full; nothing is stored.
    """
    ending = file_format(filename, "file")
    size = 0
    with receiving(directory) as temporary:
        with temporary.open("wb") as out:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > max_bytes:
                    raise TooLarge.one("file", f"is larger than {max_bytes} bytes", value=filename, allowed=max_bytes)
                out.write(chunk)
        return keep(temporary, ending)


@contextmanager
def receiving(directory: Path) -> Iterator[Path]:
    """An empty file for content that arrives, removed at the end unless it was kept (see `keep`).

    Raises:
        StorageFull: The disk is full.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=directory, suffix=PART)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull("the server has no room for the file; nothing was stored") from None
        raise


def keep(temporary: Path, ending: str) -> StoredFile:
    """Give content that has arrived its name, which follows from its hash, in the same directory."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    path = temporary.parent / f"{digest[:_DIGITS]}.{ending}"
    new = not path.exists()
    temporary.replace(path)
    sync_folder(path.parent)
    return StoredFile(digest, path, size, ending, new)


@contextmanager
def uploaded(objects: Objects, dataset_id: str, ending: str) -> Iterator[Path]:
    """The file of an uploaded data set, whose content still is what was uploaded.

    Raises:
        InvalidInput: It is gone or has another content.
        ObjectsUnavailable: The store of objects can't be reached.
        StorageFull: This machine has no room for a copy of it.
    """
    field = "data.dataset"
    with ExitStack() as stack:
        try:
            path = stack.enter_context(objects.reading(object_name(dataset_id, ending), dataset_id))
        except OSError as error:
            raise InvalidInput.one(field, f"can't be read: {error.strerror}", value=dataset_id) from None
        except OtherContent:
            message = "is not what was uploaded: its file has been changed; upload it again"
            raise InvalidInput.one(field, message, value=dataset_id) from None
        yield path


@contextmanager
def held(path: str, roots: Sequence[Path], setting: str = "REGSEARCH_DATA_ROOTS") -> Iterator[Path]:
    """The file at a path given by a user, which must be in one of the operator's directories after following links.

    It is opened once, and the open file is what is checked: on Linux the path that its block gets leads to this file,
    whatever is put in its place meanwhile. Elsewhere it is the resolved path.

    Raises:
        InvalidInput: It is elsewhere or not a file. The message is the same, so that it reveals nothing about other files.
    """
    handle = -1
    try:
        resolved = Path(path).resolve()
        if _within(resolved, roots) and resolved.is_file():
            handle = os.open(resolved, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make it wait
        descriptor = Path(f"/proc/self/fd/{handle}")
        found = descriptor if descriptor.exists() else resolved
        good = handle >= 0 and stat.S_ISREG(os.fstat(handle).st_mode) and _within(found.resolve(), roots)
    except (OSError, ValueError, RuntimeError):  # a name that is too long or contains a zero byte, links in a cycle
        good = False
    try:
        if not good:
            allowed = ", ".join(str(root) for root in roots) or f"none: the operator has set no {setting}"
            raise InvalidInput.one("data.path", "is not a file under an allowed directory", value=path, allowed=allowed)
        yield found
    finally:
        if handle >= 0:
            os.close(handle)


def is_folder(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path names a directory under an allowed one, after following links."""
    try:
        resolved = path.resolve()
        return _within(resolved, roots) and resolved.is_dir()
    except (OSError, ValueError, RuntimeError):  # as for a file
        return False


def _within(resolved: Path, roots: Sequence[Path]) -> bool:
    return any(resolved.is_relative_to(root.resolve()) for root in roots)

"""Uploaded files on disk: written once, named by their content, so that a data set's id is its proof."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.datasets.tables import FORMATS
from service.errors import InvalidInput, TooLarge

_CHUNK = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """A file under its own hash; ``id`` is the first 16 hexadecimal digits of its SHA-256."""

    id: str
    path: Path
    size: int
    format: str


def file_format(filename: str, field: str) -> str:
    """The format that a file's ending says; ``.csv.gz`` is CSV too.

    Raises:
        InvalidInput: The ending is none of `FORMATS`.
    """
    name = filename.lower()
    ending = "csv" if name.endswith(".csv.gz") else Path(name).suffix.lstrip(".")
    if ending not in FORMATS:
        raise InvalidInput.one(field, f"has the ending {ending!r}", value=filename, allowed=", ".join(FORMATS))
    return ending


def stored_path(directory: Path, dataset_id: str, ending: str) -> Path:
    """Where an uploaded data set lies."""
    return directory / f"{dataset_id}.{ending}"


def save_upload(stream: BinaryIO, filename: str, directory: Path, max_bytes: int) -> StoredFile:
    """Copy a stream to disk; the name given by the client decides the format, never the path.

    Raises:
        TooLarge: The stream is longer than ``max_bytes``; nothing is left behind.
        InvalidInput: The file's ending names no known format.
    """
    ending = file_format(filename, "file")
    directory.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    handle, temporary = tempfile.mkstemp(dir=directory, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > max_bytes:
                    raise TooLarge.one("file", f"is larger than {max_bytes} bytes", value=filename, allowed=max_bytes)
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        identity = digest.hexdigest()[:16]
        path = stored_path(directory, identity, ending)
        Path(temporary).replace(path)
        _sync(directory)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return StoredFile(identity, path, size, ending)


def resolve_path(path: str, roots: Sequence[Path]) -> Path:
    """A file named by a user, which must lie under one of the operator's directories, links followed.

    Raises:
        InvalidInput: It lies elsewhere or is no file. Both are told alike, so that nobody can feel around the disk.
    """
    try:
        resolved = Path(path).resolve()
        good = any(resolved.is_relative_to(root.resolve()) for root in roots) and resolved.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, one with a zero byte, links that go round in circles
        good = False
    if not good:
        allowed = ", ".join(str(root) for root in roots) or "none: the operator has set no REGSEARCH_DATA_ROOTS"
        raise InvalidInput.one("data.path", "is not a file under an allowed directory", value=path, allowed=allowed)
    return resolved


def _sync(directory: Path) -> None:
    """Make a rename in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

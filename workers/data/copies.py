"""Files that somebody may change while a study uses them: rows are read from a copy of the worker's own.

The copy is a file without a name, as the matrix of a Parquet file is (see `streamed`): it is gone when nobody reads it any
more, however a process ends.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from service.atomic import FULL
from service.errors import StorageFull, TrialError

_CHUNK = 1 << 20


def path_of(file: IO[bytes]) -> Path:
    """Where an open file can be opened once more."""
    path = Path(f"/proc/self/fd/{file.fileno()}")
    return path if path.exists() else Path(file.name)


@contextmanager
def as_it_is(path: Path, given: str, scratch: Path, *, copied: bool) -> Iterator[Path]:
    """A file for a block that reads it, in which it must stay as it is; what the block has mapped of a copy stays readable.

    Args:
        path: The file.
        given: The path that its user has given.
        scratch: A directory for the copy.
        copied: Whether there is to be one.

    Raises:
        TrialError: It was changed meanwhile.
        StorageFull: There is no room for the copy.
    """
    before = _state(path)
    with ExitStack() as stack:
        yield stack.enter_context(_copy(path, scratch)) if copied else path
    if _state(path) != before:
        raise TrialError(f"data.path: {given} was changed while it was read; submit the study again")


@contextmanager
def _copy(path: Path, scratch: Path) -> Iterator[Path]:
    with tempfile.TemporaryFile(dir=scratch) as file:
        try:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, _CHUNK)
            file.flush()
        except OSError as error:
            if error.errno in FULL:
                size = path.stat().st_size
                raise StorageFull(f"there is no room for a copy of the data, {size} bytes in {scratch}") from None
            raise
        yield path_of(file)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns

"""Describing a file in a separate process: `inspect_apart`.

Reading a table takes as much memory as the table, and the libraries that read it take another 80 MB and may crash on
malformed files. None of that may happen in the process that serves all clients. The child process is
`python -m service.api.inspection PATH FORMAT [WORDS THAT ARE MISSING]`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.datasets import TableInfo, inspect
from service.datasets.tables import table_from
from service.errors import InvalidInput, Issue

_TIMEOUT_SECONDS = 600.0
_PARALLEL = threading.BoundedSemaphore(2)
_CACHE_SIZE = 64


def inspect_apart(path: Path, file_format: str, missing: Sequence[str] = ()) -> TableInfo:
    """`service.datasets.inspect`, in a child process.

    Raises:
        InvalidInput: The file can't be read as that format, contains no usable table, or crashed the child process.
    """
    command = [sys.executable, "-m", "service.api.inspection", str(path), file_format, *missing]
    try:
        with _PARALLEL:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise InvalidInput.one("file", f"could not be read within {_TIMEOUT_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise InvalidInput.one("file", "could not be read: the reader ran out of memory or crashed")
    return _table(json.loads(done.stdout))


class Inspections:
    """Descriptions of files in the operator's data directories, cached until a file changes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Path, int, int, Sequence[str]], TableInfo] = OrderedDict()

    def of(self, path: Path, file_format: str, missing: tuple[str, ...] = ()) -> TableInfo:
        """The description of a file as it is now.

        Raises:
            InvalidInput: See `inspect_apart`.
            OSError: The file does not exist or can't be accessed.
        """
        state = path.stat()
        key = (path, state.st_mtime_ns, state.st_size, missing)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        table = inspect_apart(path, file_format, missing)
        with self._lock:
            self._known[key] = table
            while len(self._known) > _CACHE_SIZE:
                self._known.popitem(last=False)
        return table


def _table(found: dict[str, Any]) -> TableInfo:
    if "issues" in found:
        raise InvalidInput([Issue(**issue) for issue in found["issues"]])
    return table_from(found)


def main() -> None:
    """Describe the named file on standard output, as JSON."""
    path, file_format, *missing = sys.argv[1:]
    try:
        found = asdict(inspect(Path(path), file_format, missing))
    except InvalidInput as error:
        found = {"issues": [asdict(issue) for issue in error.issues]}
    sys.stdout.write(json.dumps(found, default=str))


if __name__ == "__main__":
    main()

"""Describing a file in a separate process: `inspect_apart`, and `python -m service.api.inspection`, which is its child."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.apart import Limits, Turns, answer_parent, run_apart
from service.datasets import TableInfo, inspect
from service.datasets.tables import table_from

_SECONDS, _BYTES_PER_SECOND = 120.0, 20e6
"""Of computing, for one file, and for what is large; half as much again may pass."""
_MEGABYTES = 3072
"""Memory of a reader, beyond what its program takes."""
_CACHE_SIZE = 64

_turns = Turns(2, 8, "files")


def inspect_apart(path: Path, file_format: str, missing: Sequence[str] = ()) -> TableInfo:
    """`service.datasets.inspect`, in a child process with limits on its memory and time.

    Args:
        path: The file; also one of /proc/self/fd, which the child gets.
        file_format: See there.
        missing: Words that stand for a missing value.

    Raises:
        InvalidInput: The file can't be read as that format, contains no usable table, or takes too much to read.
        NotReady: Too many files are being read.
    """
    request = {"path": str(path), "format": file_format, "missing": list(missing)}
    handles = [int(path.name)] if path.parent == Path("/proc/self/fd") else []
    seconds = max(_SECONDS, path.stat().st_size / _BYTES_PER_SECOND)
    limits = Limits(seconds, 1.5 * seconds, _MEGABYTES)
    return table_from(run_apart("service.api.inspection", request, limits, _turns, field="file", handles=handles))


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
        key = (path.resolve(), state.st_mtime_ns, state.st_size, missing)
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


def _inspected(request: dict[str, Any]) -> dict[str, Any]:
    return asdict(inspect(Path(request["path"]), request["format"], request["missing"]))


if __name__ == "__main__":
    answer_parent(_inspected, "file")

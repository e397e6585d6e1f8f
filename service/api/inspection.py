"""Describing a file in a separate process: `inspect_apart`.

Reading a table takes as much memory as the table, and the libraries that read it take another 80 MB and may crash on
malformed files. None of that may happen in the process that serves all clients. The child process is
`python -m service.api.inspection PATH FORMAT [WORDS THAT ARE MISSING]`.
"""

from __future__ import annotations

import json
import resource
import signal
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
from service.errors import InvalidInput, Issue, NotReady

_SECONDS = 120
"""Of computing, for one file; half as much again may pass."""
_MEGABYTES = 3072
"""Memory of a reader, beyond what its program takes."""
_PARALLEL, _WAITING = 2, 8
_CACHE_SIZE = 64


class _Turns:
    """Lets ``_PARALLEL`` callers in at a time, and ``_WAITING`` more wait: requests of others need threads, too."""

    def __init__(self) -> None:
        self._running = threading.BoundedSemaphore(_PARALLEL)
        self._places = threading.BoundedSemaphore(_PARALLEL + _WAITING)

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise NotReady("too many files are being read at the moment; try again in a few seconds")
        self._running.acquire()

    def __exit__(self, *_: object) -> None:
        self._running.release()
        self._places.release()


_turns = _Turns()


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
    command = [sys.executable, "-m", "service.api.inspection", str(path), file_format, *missing]
    handles = [int(path.name)] if path.parent == Path("/proc/self/fd") else []
    try:
        with _turns:
            done = subprocess.run(command, capture_output=True, check=False, timeout=1.5 * _SECONDS, pass_fds=handles)
    except subprocess.TimeoutExpired:
        raise InvalidInput.one("file", f"could not be read within {_SECONDS} s") from None
    if done.returncode == -signal.SIGXCPU:
        raise InvalidInput.one("file", f"could not be read within {_SECONDS} s")
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


def _table(found: dict[str, Any]) -> TableInfo:
    if "issues" in found:
        raise InvalidInput([Issue(**issue) for issue in found["issues"]])
    return table_from(found)


def main() -> None:
    """Describe the named file on standard output, as JSON."""
    path, file_format, *missing = sys.argv[1:]
    _limit(resource.RLIMIT_CPU, _SECONDS)
    _limit(resource.RLIMIT_DATA, _MEGABYTES << 20)
    try:
        found = asdict(inspect(Path(path), file_format, missing))
    except InvalidInput as error:
        found = {"issues": [asdict(issue) for issue in error.issues]}
    except MemoryError:
        found = {"issues": [asdict(Issue("file", f"takes more than {_MEGABYTES} MB of memory to read"))]}
    sys.stdout.write(json.dumps(found, default=str))


def _limit(what: int, amount: int) -> None:
    """Lower a limit of this process."""
    _, most = resource.getrlimit(what)
    if most == resource.RLIM_INFINITY or most > amount:
        resource.setrlimit(what, (amount, most))


if __name__ == "__main__":
    main()

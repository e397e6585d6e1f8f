"""Work in a process of its own, with limits on its time and memory: reading files, servers and databases of others.

Reading may take as much memory as what is read, its libraries take another 80 MB and may crash on malformed input, and a
server may never end its answer. None of that may happen in the process that serves all clients.

The parent calls `run_apart`; the child is `python -m MODULE`, whose main function calls `answer_parent`. Request and answer
are JSON on standard input and output: arguments, which everybody on the machine can list, must have no password.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from service.errors import InvalidInput, Issue, NotReady, StorageFull, TooLarge

_KINDS: Mapping[str, type[InvalidInput]] = {kind.__name__: kind for kind in (InvalidInput, TooLarge)}


@dataclass(frozen=True)
class Limits:
    """Of a child: seconds of computing, seconds that pass, and memory beyond what its program takes."""

    computing: float
    passing: float
    megabytes: int


class Turns:
    """Lets a number of callers in at a time, and some more wait: requests of others need threads, too."""

    def __init__(self, running: int, waiting: int, what: str) -> None:
        self._running = threading.BoundedSemaphore(running)
        self._places = threading.BoundedSemaphore(running + waiting)
        self._what = what

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise NotReady(f"too many {self._what} are being read at the moment; try again in a few seconds")
        self._running.acquire()

    def __exit__(self, *_: object) -> None:
        self._running.release()
        self._places.release()


def run_apart(
    module: str, request: Mapping[str, Any], limits: Limits, turns: Turns, *, field: str, handles: Sequence[int] = ()
) -> Any:
    """What the main function of a module makes of a request, in a process of its own.

    Args:
        module: Its name.
        request: JSON.
        limits: Of the process.
        turns: In which it has to queue.
        field: On which it is told that a limit was reached.
        handles: Open files that the process gets.

    Raises:
        InvalidInput: The work has failed so, or reached a limit.
        StorageFull: The disk is full.
        NotReady: There is no place in the queue.
    """
    given = json.dumps({"limits": asdict(limits), "request": request}).encode()
    late = InvalidInput.one(field, f"could not be read within {limits.computing:g} s")
    try:
        with turns:
            command = [sys.executable, "-m", module]
            wait = limits.passing + 5
            done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=wait, pass_fds=handles)
    except subprocess.TimeoutExpired:
        raise late from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGALRM):
        raise late
    if done.returncode != 0:
        raise InvalidInput.one(field, "could not be read: the reader ran out of memory or crashed")
    answer = json.loads(done.stdout)
    if "full" in answer:
        raise StorageFull(answer["full"])
    if "issues" in answer:
        raise _KINDS[answer["kind"]]([Issue(**issue) for issue in answer["issues"]])
    return answer["found"]


def answer_parent(work: Callable[[Any], Any], field: str) -> None:
    """In the child: answer the request on standard input; ``field`` is the one on which a lack of memory is told."""
    given = json.load(sys.stdin)
    limits = Limits(**given["limits"])
    _limit(resource.RLIMIT_CPU, int(limits.computing) + 1)
    _limit(resource.RLIMIT_DATA, limits.megabytes << 20)
    signal.setitimer(signal.ITIMER_REAL, limits.passing)  # it ends by itself if its parent is gone
    try:
        answer: dict[str, Any] = {"found": work(given["request"])}
    except InvalidInput as error:
        answer = {"kind": type(error).__name__, "issues": [asdict(issue) for issue in error.issues]}
    except StorageFull as error:
        answer = {"full": str(error)}
    except MemoryError:
        message = f"takes more than {limits.megabytes} MB of memory to read"
        answer = {"kind": InvalidInput.__name__, "issues": [asdict(Issue(field, message))]}
    sys.stdout.write(json.dumps(answer, default=str))


def _limit(what: int, amount: int) -> None:
    """Lower a limit of this process."""
    _, most = resource.getrlimit(what)
    if most == resource.RLIM_INFINITY or most > amount:
        resource.setrlimit(what, (amount, most))

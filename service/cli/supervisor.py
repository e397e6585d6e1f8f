"""Starting the service's processes on one machine, and keeping them alive.

The API is one process, every worker another. A process that dies is restarted, after a delay that grows while it keeps
dying. All of them end with the supervisor: in order on Ctrl-C or SIGTERM, at once on a second signal, and through the
kernel if the supervisor is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from service.errors import RegsearchError

STOP_SECONDS = 15.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_PROBES = 5


class CannotStart(RegsearchError):
    """A process of the service can't be started."""


@dataclass
class Child:
    """A process to be kept alive; times in seconds, ``started`` and ``due`` (its next start) on the monotonic clock."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = _FIRST_PAUSE
    due: float = 0.0

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self.process is not None and self.process.poll() is None


class Signals:
    """Counts Ctrl-C and SIGTERM: the first asks for an orderly end, the second for an immediate one.

    A context manager for the main thread; it restores the previous handlers.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._again = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked.is_set():
            self._again.set()
        self._asked.set()

    @property
    def impatient(self) -> bool:
        """Whether a second signal has arrived."""
        return self._again.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the first signal for at most ``seconds``; returns whether it has arrived."""
        return self._asked.wait(seconds)

    def check(self) -> None:
        """Raise if a signal has arrived.

        Raises:
            KeyboardInterrupt: It has.
        """
        if self._asked.is_set():
            raise KeyboardInterrupt


class Supervisor:
    """Runs child processes until `stop`. Use it as a context manager, and call `tick` in a loop.

    ``echo`` prints a line. ``impatient`` is polled while children are given time to end: once it returns True, they are
    killed.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        home: Path,
        echo: Callable[[str], None],
        impatient: Callable[[], bool] = lambda: False,
    ) -> None:
        self._environment = dict(environment)
        self._logs = home / "logs"
        self._echo = echo
        self._impatient = impatient
        self.children: list[Child] = []

    def __enter__(self) -> Supervisor:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add(self, name: str, *command: str) -> Child:
        """Start ``python -m command`` and keep it alive; its output goes to a log file."""
        child = Child(name, (sys.executable, "-m", *command), self._logs / f"{name}.log")
        self.children.append(child)
        self._start(child)
        return child

    def tick(self) -> None:
        """Restart children that have died, once their delay is over."""
        now = time.monotonic()
        for child in self.children:
            if child.running:
                continue
            if child.process is not None:
                code = child.process.returncode
                child.process = None
                steady = now - child.started > _STEADY_SECONDS
                child.pause = _FIRST_PAUSE if steady else child.pause
                child.due = now + child.pause
                child.pause = min(_LONGEST_PAUSE, child.pause * 2)
                how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
                self._echo(f"{child.name} {how}; it will be restarted ({child.log})")
                if code > 0 and (last := last_line(child.log)):
                    self._echo(f"  {last}")
            elif now >= child.due:
                self._start(child)

    def stop(self) -> None:
        """Ask every child to stop, the workers first, and kill those that have not ended within `STOP_SECONDS`."""
        processes = [child.process for child in reversed(self.children) if child.running and child.process]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        give_up = time.monotonic() + STOP_SECONDS
        while any(process.poll() is None for process in processes):
            if self._impatient() or time.monotonic() > give_up:
                for process in processes:
                    _kill(process)
                return
            time.sleep(0.05)

    def _start(self, child: Child) -> None:
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C reaches the supervisor only, which stops children in order
                # One system call between fork and exec; nothing that could wait for another thread.
                preexec_fn=partial(_die_with_parent, os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        child.started = time.monotonic()


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent ends; exit if the parent has ended already."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a running process and its descendants: it leads a process group of its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(log: Path) -> str:
    """The last line of a log, which usually tells why a process died."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        lines = stream.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def worker_devices() -> list[str]:
    """The devices, one per worker, as the worker program lists them.

    Raises:
        CannotStart: The worker program is not installed or does not run.
    """
    command = [sys.executable, "-m", "workers", "--list-devices"]
    for _ in range(_PROBES):
        # In a session of its own: a Ctrl-C that is meant for the supervisor must not make it fail.
        found = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
        if found.returncode >= 0:  # else it was killed, which says nothing of the devices
            break
    if found.returncode != 0:
        last = (found.stderr.strip().splitlines() or ["no output"])[-1]
        raise CannotStart(f"workers can't run here: {last}; install them with: pip install 'regsearch[worker]'")
    devices: list[str] = json.loads(found.stdout)
    return devices


def check_port(host: str, port: int) -> None:
    """Check that a port is free.

    Raises:
        CannotStart: The port can't be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CannotStart(f"port {port} on {host} can't be used ({reason}); choose another with --port") from None


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child_environment(**settings: str) -> dict[str, str]:
    """The environment of children: that of this process, and ``settings`` as `REGSEARCH_…`."""
    own = {f"REGSEARCH_{name.upper()}": value for name, value in settings.items()}
    inherited = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in own}
    return {**inherited, **own}

"""Starting the service's processes on one machine, and keeping them alive.

The API is one process, every worker another. A worker that dies is started again, after a pause that grows while it keeps
dying. All of them end with the supervisor: on Ctrl-C or SIGTERM in order, on kill -9 through the kernel.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import RegsearchError

STOP_SECONDS = 15.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1


class CannotStart(RegsearchError):
    """A process of the service can't be started."""


@dataclass
class Child:
    """A process to be kept alive."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = _FIRST_PAUSE
    due: float = 0.0
    restarts: int = field(default=0)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Runs children until `stop`. Use it as a context manager; `tick` belongs into the caller's loop."""

    def __init__(self, environment: Mapping[str, str], home: Path, say: Callable[[str], None]) -> None:
        self._environment = dict(environment)
        self._logs = home / "logs"
        self._say = say
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
        """Start again what has died, when its pause is over."""
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
                self._say(f"{child.name} {how}; it is started again ({child.log})")
            elif now >= child.due:
                child.restarts += 1
                self._start(child)

    def stop(self) -> None:
        """Ask every child to stop, the workers first, and kill what has not after a while."""
        for child in reversed(self.children):
            if child.running and child.process:
                child.process.send_signal(signal.SIGTERM)
        give_up = time.monotonic() + STOP_SECONDS
        for child in self.children:
            if child.process is None:
                continue
            try:
                child.process.wait(timeout=max(0.1, give_up - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                child.process.kill()
                child.process.wait()

    def _start(self, child: Child) -> None:
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C reaches the supervisor only, which stops children in order
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # one C call
            )
        child.started = time.monotonic()


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent is gone."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def worker_devices() -> list[str]:
    """One device per worker, as the workers' own program finds them.

    Raises:
        CannotStart: The worker program is not installed or does not run.
    """
    command = [sys.executable, "-m", "workers", "--list-devices"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        last = (found.stderr.strip().splitlines() or ["no output"])[-1]
        raise CannotStart(f"workers can't run here: {last}; install them with: pip install 'regsearch[worker]'")
    devices: list[str] = json.loads(found.stdout)
    return devices


def check_port(host: str, port: int) -> None:
    """Make sure that nobody listens at an address.

    Raises:
        CannotStart: Somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"port {port} on {host} can't be used ({error.strerror}); choose another with --port"
            ) from None


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child_environment(**settings: str) -> dict[str, str]:
    """The environment of children: this process's, and settings as `REGSEARCH_…`."""
    return {**os.environ, **{f"REGSEARCH_{name.upper()}": value for name, value in settings.items()}}

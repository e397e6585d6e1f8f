"""The supervisor over real processes: starting again, ending in order, at once, and with its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from service.cli import supervisor as module
from service.cli.local import address, worker_arguments
from service.cli.supervisor import CannotStart, Signals, Supervisor, check_port, child_environment, free_port, last_line
from service.settings import Settings
from tests.clock import Clock

ROOT = Path(__file__).parents[3]

PROGRAMS = {
    "steady": "import time\nprint('up', flush=True)\ntime.sleep(600)\n",
    "dying": "import sys\nsys.exit('[Errno 7] it broke')\n",
    "deaf": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)\n",
    "parent": (
        "import signal, subprocess, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\ntime.sleep(600)\n"
    ),
    "polite": (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "sys.stdout.write('up\\n')\nsys.stdout.flush()\ntime.sleep(600)\n"  # unbuffered, print would write the end apart
    ),
    "supervising": (
        "import sys, time\nfrom pathlib import Path\nfrom service.cli.supervisor import Supervisor, child_environment\n"
        "with Supervisor(child_environment(), Path(sys.argv[1]), print) as running:\n"
        "    print(running.add('child', 'steady').process.pid, flush=True)\n    time.sleep(600)\n"
    ),
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which `python -m` finds the programs above."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / f"{name}.py").write_text(text)
    return {**child_environment(), "PYTHONPATH": f"{programs}{os.pathsep}{ROOT}"}


class Running:
    """A supervisor, what it said, and whether somebody is impatient."""

    def __init__(self, environment: dict[str, str], home: Path) -> None:
        self.said: list[str] = []
        self.impatient = False
        self.supervisor = Supervisor(environment, home, self.said.append, lambda: self.impatient)


@pytest.fixture
def running(environment: dict[str, str], tmp_path: Path) -> Iterator[Running]:
    found = Running(environment, tmp_path / "home")
    with found.supervisor:
        yield found
        found.impatient = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The supervisor's clock; the children have another."""
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.02)


def test_a_killed_child_is_started_again(running: Running) -> None:
    child = running.supervisor.add("worker-0", "steady")
    assert child.process is not None
    first = child.process.pid
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not child.running)
    running.supervisor.tick()
    assert running.said == [f"worker-0 was killed by signal 9; it will be restarted ({child.log})"]
    child.due = 0.0
    running.supervisor.tick()
    assert child.running
    assert child.process.pid != first


def test_the_pause_grows_while_a_child_keeps_dying_and_its_last_words_are_told(running: Running, clock: Clock) -> None:
    child = running.supervisor.add("worker-0", "dying")
    pauses = []
    for _ in range(7):
        wait_for(lambda: not child.running)
        running.supervisor.tick()
        pauses.append(child.due - clock.now)
        clock.now = child.due
        running.supervisor.tick()
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert running.said[:2] == [f"worker-0 ended with code 1; it will be restarted ({child.log})", "  [Errno 7] it broke"]


def test_a_child_that_lived_for_long_starts_again_soon(running: Running, clock: Clock) -> None:
    child = running.supervisor.add("worker-0", "dying")
    wait_for(lambda: not child.running)
    clock.now += 100.0
    child.pause = 30.0
    running.supervisor.tick()
    assert child.due == clock.now + 1.0


def test_nothing_is_started_before_its_pause_is_over(running: Running, clock: Clock) -> None:
    child = running.supervisor.add("worker-0", "dying")
    wait_for(lambda: not child.running)
    first = child.started
    for _ in range(5):
        running.supervisor.tick()
    assert child.started == first
    clock.now += 1.0
    running.supervisor.tick()
    assert child.started > first


def test_the_end_is_asked_for_first(running: Running) -> None:
    child = running.supervisor.add("worker-0", "polite")
    wait_for(lambda: last_line(child.log) == "up")
    running.supervisor.stop()
    assert not child.running
    assert last_line(child.log) == "bye"


def test_who_does_not_listen_is_killed_after_a_while(running: Running, clock: Clock) -> None:
    child = running.supervisor.add("worker-0", "deaf")
    wait_for(lambda: last_line(child.log) == "up")
    running.supervisor.stop()
    assert sum(clock.naps) == pytest.approx(module.STOP_SECONDS, abs=0.1)
    assert not child.running


def test_the_impatient_do_not_wait_and_nothing_is_left(running: Running, clock: Clock) -> None:
    child = running.supervisor.add("worker-0", "parent")
    wait_for(lambda: last_line(child.log).isdigit())
    grandchild = psutil.Process(int(last_line(child.log)))
    running.impatient = True
    running.supervisor.stop()
    assert clock.naps == []
    assert not child.running
    wait_for(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_children_end_with_a_supervisor_that_was_killed(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "supervising", str(tmp_path / "home")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        assert child.is_running()
        process.kill()
        process.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_signals_are_counted() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert not signals.wait(0)
        signals.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.wait(5)
        assert not signals.impatient
        with pytest.raises(KeyboardInterrupt):
            signals.check()
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: signals.impatient)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_that_is_taken_is_refused_with_its_number() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} on 127.0.0.1 can't be used.*--port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", free_port())
    with pytest.raises(CannotStart):
        check_port("127.0.0.1", 99_999)
    with pytest.raises(CannotStart):
        check_port("no.such.host.invalid", 8000)


def test_children_get_settings_by_environment() -> None:
    assert child_environment(home="/x", port="1").items() >= {"REGSEARCH_HOME": "/x", "REGSEARCH_PORT": "1"}.items()


def test_workers_of_one_device_share_its_memory_and_those_of_the_cpu_its_cores() -> None:
    assert worker_arguments("cuda:1", 1) == ["--device", "cuda:1"]
    assert worker_arguments("cuda:1", 3) == ["--device", "cuda:1", "--memory-share", "0.3333"]
    threads = str(max(1, (os.cpu_count() or 1) // 2))
    assert worker_arguments("cpu", 2) == ["--device", "cpu", "--memory-share", "0.5", "--threads", threads]


def test_the_address_is_one_that_a_client_can_reach() -> None:
    assert address(Settings(host="127.0.0.1", port=8000)) == "http://127.0.0.1:8000"
    assert address(Settings(host="0.0.0.0", port=1)) == "http://127.0.0.1:1"
    assert address(Settings(host="::", port=1)) == "http://[::1]:1"


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"")
    assert last_line(log) == ""
    log.write_bytes(b"x" * 10_000 + b"\nwords \xff\n\n")
    assert last_line(log) == "words \ufffd"


def test_a_probe_of_the_devices_that_is_killed_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does when memory is short."""
    killed = tmp_path / "killed"
    probe = tmp_path / "probe"
    probe.write_text(f"#!/bin/sh\n[ -e {killed} ] && echo '[\"cpu\"]' && exit 0\ntouch {killed}\nkill -9 $$\n")
    probe.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(probe))  # type: ignore[attr-defined]
    assert module.worker_devices() == ["cpu"]
    probe.write_text("#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(CannotStart, match="workers can't run here"):
        module.worker_devices()

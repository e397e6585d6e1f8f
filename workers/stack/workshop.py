"""The programs of a worker's stacks: those in the folder, and those that are being built beside the training.

A stack asks for its programs before every epoch, and trains eagerly until they are there.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from workers.stack import programs
from workers.stack.blueprint import PARTS, Blueprint, Part

log = logging.getLogger(__name__)


class Workshop:
    """Programs in ``folder``. Safe to use from several threads.

    Updates are built before evaluations, and otherwise in the order in which they are asked for. Where a program can't be
    built, its stacks go on eagerly, and the reason is logged once.

    Args:
        folder: Where libraries are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wanted: dict[Part, deque[Blueprint]] = {part: deque() for part in PARTS}
        self._asked: set[tuple[Blueprint, Part]] = set()
        self._failed: set[tuple[Blueprint, Part]] = set()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def find(self, blueprint: Blueprint, part: Part, *, build: bool = True, wait: bool = False) -> programs.Program | None:
        """The program, if it is there; else it is asked for, where it may be built.

        ``wait``: until it is there, or can't be built.
        """
        path = programs.path_of(blueprint, part, self.folder)
        found = programs.opened(path)
        if found is not None or not (build or wait) or programs.compiler() is None:
            return found
        self._ask(blueprint, part)
        if not wait:
            return None
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (blueprint, part) not in self._asked)
        return programs.opened(path)

    def is_building(self) -> bool:
        """Whether a program is being built."""
        return self._thread is not None

    def close(self) -> None:
        """Build nothing more; what is being built is given up."""
        with self._changed:
            self._closed = True
            if self._process is not None:
                self._process.kill()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _ask(self, blueprint: Blueprint, part: Part) -> None:
        with self._changed:
            if self._closed or (blueprint, part) in self._asked | self._failed:
                return
            self._asked.add((blueprint, part))
            self._wanted[part].append(blueprint)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="workshop", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        """Hand over one job after the other, until there is none."""
        while True:
            with self._changed:
                part = next((part for part in PARTS if self._wanted[part]), None)
                if part is None or self._closed:
                    self._thread = None
                    self._end_process()
                    return
                blueprint = self._wanted[part].popleft()
            start = time.monotonic()
            reason = self._built(blueprint, part)
            log.info("compiled", extra={"part": part, "seconds": round(time.monotonic() - start, 1)})
            with self._changed:
                self._asked.discard((blueprint, part))
                if reason:
                    self._failed.add((blueprint, part))
                    if not self._closed:
                        log.warning("a program can't be compiled, its stacks are trained without it: %s", reason)
                self._changed.notify_all()

    def _built(self, blueprint: Blueprint, part: Part) -> str:
        """Build one program; returns why it could not be done, or nothing."""
        with self._lock:
            if self._closed:
                return "the worker is stopping"
            if self._process is None:
                command = [sys.executable, "-m", "workers.stack.building"]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((blueprint, part, self.folder), process.stdin)
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError as error:
            answer = f"{error}\n".encode()
        if not answer:
            return "the process that compiles it has ended"
        there = programs.path_of(blueprint, part, self.folder).exists()
        return answer.decode().strip() or ("" if there else "the module's file has changed since this worker imported it")

    def _end_process(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait()

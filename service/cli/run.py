"""`regsearch run`: an unchanged script as the program of an external study.

A trial's settings reach the script as environment variables, and as arguments where the command has a place for them. Its
values are read from lines that it prints, or from a file of JSON lines that it writes.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.cli.supervisor import child_environment
from service.client import Study, Trial
from service.errors import RegsearchError

GRACE_SECONDS = 10.0
"""Between the request to end and the end of a stopped script."""
_POLL_SECONDS = 0.1
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|[-+]?inf"
_ALL = "args"


class ScriptFailed(RegsearchError):
    """A script ended with an error, or without a value."""


def run_script(study: Study, command: Sequence[str], *, parallel: int, grace: float) -> None:
    """Run a command for each trial of a study, until it is over.

    Args:
        study: An external one.
        command: With places for settings: `{lr}` for one, `{args}` for `--name=value` of all.
        parallel: How many at once.
        grace: Seconds that a stopped script has for its own end.
    """
    metric = str(study.latest["metric"])
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # which ends the scripts, too
    try:
        study.run(lambda trial: Script(trial, command, metric, grace).run(), threads=parallel, catch=ScriptFailed)
    finally:
        signal.signal(signal.SIGTERM, before)


def arguments(command: Sequence[str], params: Mapping[str, Any]) -> list[str]:
    """A command with a trial's settings in their places; other braces stay.

    >>> arguments(["python", "train.py", "--lr", "{lr}", "{args}"], {"lr": 0.1, "norm": "batch"})
    ['python', 'train.py', '--lr', '0.1', '--lr=0.1', '--norm=batch']
    """
    found: list[str] = []
    for word in command:
        if word == f"{{{_ALL}}}":
            found += [f"--{name}={_text(value)}" for name, value in params.items()]
        else:
            found.append(_PLACE.sub(lambda place: _text(params.get(place[1], place[0])), word))
    return found


def variables(trial: Trial, results: Path) -> dict[str, str]:
    """The environment variables of a trial."""
    upper = {re.sub(r"[^A-Z0-9]", "_", name.upper()): value for name, value in trial.params.items()}
    named = {f"REGSEARCH_PARAM_{name}": _text(value) for name, value in upper.items()}
    about = {"TRIAL": trial.name, "PURPOSE": trial.purpose, "SEED": str(trial.seed), "PARAMS": json.dumps(trial.params)}
    own = {f"REGSEARCH_{name}": value for name, value in about.items()}
    return {**named, **own, "REGSEARCH_RESULTS": str(results), "PYTHONUNBUFFERED": "1"}  # values are wanted as they come


def values_in(line: str, metric: str) -> dict[str, float]:
    """The values that a line has of a metric, its `step`, and on `test` data: of JSON, or `metric=0.3` or `metric: 0.3`.

    >>> values_in('{"step": 3, "val_loss": 0.25}', "val_loss")
    {'val_loss': 0.25, 'step': 3.0}
    >>> values_in("epoch 3  train_loss 0.1  val_loss: 2.5e-1", "val_loss"), values_in("nothing here", "val_loss")
    ({'val_loss': 0.25}, {})
    >>> values_in("test_val_loss=0.3", "val_loss"), values_in("test: 0.3", "val_loss")
    ({'test': 0.3}, {'test': 0.3})
    """
    line = line.strip()
    if line.startswith("{"):
        try:
            document = json.loads(line)
        except ValueError:
            return {}
        known = document if isinstance(document, dict) else {}
        wanted = {metric: metric, "step": "step", "test": "test", f"test_{metric}": "test"}
        return {key: float(known[name]) for name, key in wanted.items() if isinstance(known.get(name), int | float)}
    found = {metric: _after(re.escape(metric), line), "test": _after(f"test(?:_{re.escape(metric)})?", line)}
    return {name: value for name, value in found.items() if value is not None}


def _after(name: str, line: str) -> float | None:
    """The number after a name and a sign in a line."""
    found = re.search(rf"(?<![\w./@-]){name}\s*[=:]\s*({_NUMBER})(?![\w.])", line, flags=re.IGNORECASE)
    return None if found is None else float(found[1])


class Script:
    """One run of the command for a trial."""

    def __init__(self, trial: Trial, command: Sequence[str], metric: str, grace: float) -> None:
        self._trial = trial
        self._command = arguments(command, trial.params)
        self._metric = metric
        self._grace = grace
        self._steps = 0
        self._test: float | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failed: Exception | None = None
        self._last = ""

    def run(self) -> None:
        """Run it to its end, and tell the trial.

        Raises:
            ScriptFailed: It ended with an error, or without a value.
        """
        with tempfile.TemporaryDirectory(prefix="regsearch-run-") as folder:
            results = Path(folder) / "results.jsonl"
            results.touch()
            try:
                process = subprocess.Popen(
                    self._command,
                    env={**child_environment(), **variables(self._trial, results)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise ScriptFailed(f"{self._command[0]} can't be started: {error.strerror}") from None
            try:
                self._follow(process, results)
            finally:
                _end(process, self._grace)
        self._conclude(process.returncode)

    def _follow(self, process: subprocess.Popen[str], results: Path) -> None:
        """Report values until the script ends, or is to be stopped."""
        assert process.stdout is not None, "it is a pipe"
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        with results.open(encoding="utf-8", errors="replace") as file:
            while process.poll() is None and not self._ending:
                for line in _whole_lines(file):
                    self._take(line)
                time.sleep(_POLL_SECONDS)
            if not self._ending:
                reader.join()
                for line in file:
                    self._take(line)

    @property
    def _ending(self) -> bool:
        """Whether it was told to stop, or given back."""
        return self._stopped.is_set() or self._trial.lost_to_another

    def _read(self, lines: Iterator[str]) -> None:
        for line in lines:
            sys.stdout.write(f"[trial {self._trial.name}] {line}")
            sys.stdout.flush()
            self._last = line.strip() or self._last
            self._take(line)

    def _take(self, line: str) -> None:
        found = values_in(line, self._metric)
        if not found or self._stopped.is_set():
            return
        with self._lock:
            self._test = found.get("test", self._test)
            if self._metric not in found:
                return
            step = int(found.get("step", self._steps))
            self._steps = step + 1
            try:
                stop = self._trial.report(step, found[self._metric])
            except RegsearchError as error:
                self._failed, stop = error, True
            if stop:
                self._stopped.set()

    def _conclude(self, code: int) -> None:
        if self._failed is not None:
            raise self._failed
        if not self._ending and code != 0:
            raise ScriptFailed(f"{Path(self._command[0]).name} ended with code {code}: {self._last[:1000]}")
        if self._trial.lost_to_another:
            return
        if self._trial.best is None:
            raise ScriptFailed(f"the script printed no {self._metric}=…, and wrote none to $REGSEARCH_RESULTS")
        self._trial.tell(test=self._test if self._trial.purpose != "search" else None)


def _whole_lines(file: Any) -> Iterator[str]:
    """The complete lines that were added; a line that is still being written is left for the next time."""
    while True:
        place = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(place)
            return
        yield line


def _end(process: subprocess.Popen[str], grace: float) -> None:
    """End a script and what it has started, if it still runs."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

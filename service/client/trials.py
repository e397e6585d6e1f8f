"""Trials of an external study in this process: asked one after the other, kept by heartbeats, told when they end.

A `Session` holds a lease under a name of its own. Its thread renews the lease while trials run, so that a program that dies
loses them, and one that computes for hours does not.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from service.client.connection import HttpClient, Refused, Unreachable
from service.errors import RegsearchError

PATIENCE_SECONDS = 60.0
"""How long an outage of the service may last before a program gives up."""


class Ended(RegsearchError):
    """A trial has been told already, or was given to another program."""


class Session:
    """The lease of this process on one study. Thread-safe.

    Args:
        connection: To the service.
        study: What the service tells of an external study.
        lease_seconds: After which its trials are given away if this process dies.
    """

    def __init__(self, connection: HttpClient, study: Mapping[str, Any], lease_seconds: float = 60.0) -> None:
        self.connection = connection
        self.client = uuid.uuid4().hex
        self._path = f"/v1/studies/{study['id']}"
        self._lower_is_better = study["direction"] == "minimize"
        self._seconds = lease_seconds
        self._open: dict[str, Trial] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def trials(self) -> Iterator[Trial]:
        """Trials, until there are no more; where others hold the last ones it waits for them."""
        key = uuid.uuid4().hex
        while not self._closed.is_set():
            answer = self.call("ask", n=1, key=key)
            if answer["over"]:
                return
            if not answer["trials"]:
                time.sleep(float(answer["retry_after"] or 1.0))
                continue
            key = uuid.uuid4().hex
            for asked in answer["trials"]:
                yield self._begun(asked)

    def call(self, verb: str, **body: Any) -> Any:
        """A request for this lease, repeated through an outage."""
        given = {"client": self.client, "lease_seconds": self._seconds, **body}
        return self.connection.repeat(f"{self._path}/trials:{verb}", given, patience=PATIENCE_SECONDS)

    def ended(self, trial: Trial) -> None:
        """Note that a trial needs no more heartbeats."""
        with self._lock:
            self._open.pop(trial.name, None)

    def close(self) -> None:
        """Give back what is still open, which another program will be asked to run."""
        self._closed.set()
        with self._lock:
            kept = list(self._open.values())
            self._open.clear()
        for trial in kept:
            trial.lost("it was given back")
        if kept:
            with contextlib.suppress(Refused, Unreachable):
                self.call("release")

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value is better than another by the study's objective."""
        if than is None or math.isnan(than):
            return not math.isnan(value)
        return value < than if self._lower_is_better else value > than

    def _begun(self, asked: Mapping[str, Any]) -> Trial:
        trial = Trial(self, asked)
        with self._lock:
            self._open[trial.name] = trial
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="regsearch heartbeat", daemon=True)
                self._thread.start()
        return trial

    def _beat(self) -> None:
        while not self._closed.wait(self._seconds / 3):
            with self._lock:
                kept = list(self._open.values())
            if not kept:
                continue
            try:
                self.connection.post(
                    f"{self._path}/trials:heartbeat", {"client": self.client, "lease_seconds": self._seconds}
                )
            except Refused as refused:
                if refused.status in (404, 409):
                    for trial in kept:
                        trial.lost(str(refused))
            except Unreachable:
                continue  # the next one may arrive in time


class Trial:
    """A trial that this process runs. As a context it tells its end: with the best value reported, or as failed.

    Attributes:
        params: The value of every setting that applies.
        name: What the service calls it.
        number: Of the trial, or of that which found the setting.
        purpose: `search`; after it `finalist`, `baseline` or `ablation`: a setting run again with a seed.
        setting: Its name, after the search.
        seed: For the program's random numbers.
        attempt: Number of programs that were lost while they ran it.
        stopped: Why it is to end, once `report` has returned True.
    """

    def __init__(self, session: Session, asked: Mapping[str, Any]) -> None:
        self.params: dict[str, Any] = dict(asked["params"])
        self.name: str = asked["trial"]
        self.number: int | None = asked["number"]
        self.purpose: Literal["search", "finalist", "baseline", "ablation"] = asked["purpose"]
        self.setting: str | None = asked["setting"]
        self.seed: int = asked["seed"]
        self.attempt: int = asked["attempt"]
        self.stopped: str | None = None
        self.best: float | None = None
        self._session = session
        self._decision = "continue"
        self._told = False

    def report(self, step: int, value: float) -> bool:
        """Report the objective after an evaluation; returns whether to stop: pruned, converged, cancelled, or lost.

        Args:
            step: Number of evaluations before this one.
            value: Not a number where the program has diverged.

        Raises:
            Ended: It was told before.
        """
        if self._told:
            raise Ended(f"trial {self.name} has been told already")
        if self._decision == "lost":
            return True
        value = float(value)
        if self._session.better(value, self.best):
            self.best = value
        given = {"trial": self.name, "step": step, "value": value if math.isfinite(value) else None}
        (answer,) = self._session.call("report", values=[given])
        if self._decision != "lost":
            self._decision, self.stopped = answer["decision"], answer["reason"]
        return self._decision != "continue"

    @property
    def lost_to_another(self) -> bool:
        """Whether it was given away, so that it can't be told here."""
        return self._decision == "lost"

    @property
    def pruned(self) -> bool:
        """Whether the last report was answered by pruning it."""
        return self._decision == "prune"

    def tell(
        self,
        value: float | None = None,
        *,
        also: Mapping[str, float] | None = None,
        test: float | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell its end now, and more than its best value.

        Args:
            value: Of the objective; the best one reported if omitted.
            also: Of the study's further objectives.
            test: The objective on test data; after the search only, and read for winner and baseline alone.
            attrs: Anything to keep with the trial.

        Raises:
            Ended: It was told before, or another program runs it now.
            Refused: It has no value.
        """
        value = self.best if value is None else float(value)
        state = "pruned" if self.pruned else "complete"
        self._tell(state, value=value, also=dict(also or {}), test=test, attrs=dict(attrs or {}), reason=self.stopped)

    def fail(self, reason: str) -> None:
        """Tell that it failed.

        Raises:
            Ended: As `tell`.
        """
        self._tell("fail", reason=reason[:2000])

    def lost(self, reason: str) -> None:
        """Note that it was given away: the next `report` returns True, and it is not told."""
        self._decision, self.stopped = "lost", reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tell it, unless that has happened; one that was given away is dropped."""
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            return  # it is given back
        if self._told or self._decision == "lost":
            self._session.ended(self)
        elif error is not None:
            with contextlib.suppress(Ended):
                self.fail(f"{type(error).__name__}: {error}")
        elif self.best is None:
            reason = "it ended without a value: report some, or tell one"
            self.fail(reason)
            raise ValueError(f"trial {self.name}: {reason}")
        else:
            self.tell()

    def _tell(self, state: str, **rest: Any) -> None:
        if self._told:
            raise Ended(f"trial {self.name} has been told already")
        answer = self._session.call("tell", trials=[{"trial": self.name, "state": state, **rest}])
        self._told = True
        self._session.ended(self)
        for refused in answer["refused"]:
            raise Ended(refused["reason"])

    def __repr__(self) -> str:
        return f"Trial({self.name}, {self.params})"

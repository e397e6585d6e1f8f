"""Submitting, watching and reading studies, and running the trials of external ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from service.client.connection import HttpClient
from service.client.trials import Session, Trial

if TYPE_CHECKING:
    import pandas as pd

    from service.result import StudyResult
    from service.result.external import ExternalStudyResult

ENDED = ("finished", "cancelled", "failed")
_PAGE = 500


class Client:
    """A regsearch service. Thread-safe; also a context, at whose end the connections are closed.

    Args:
        url: Where it is.
        token: Where it asks for one; default: `REGSEARCH_TOKEN`, or that of `regsearch login`.
        timeout: Seconds after which a request is given up.

    Raises:
        Unreachable: Of every method: no service answers at the address.
        Refused: Of every method: the service rejected the request; with its reasons.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout: float = 60.0) -> None:
        self.connection = HttpClient(url, timeout=timeout, token=token)

    def study(self, spec: Mapping[str, Any] | int) -> Study:
        """Submit a study; or, by its id, one that is there.

        A spec without ``data`` is of a study whose trials this program runs (`executor: external`).
        """
        if isinstance(spec, int):
            return Study(self.connection, self.connection.get(f"/v1/studies/{spec}"))
        implied = {} if "data" in spec else {"executor": "external"}
        return Study(self.connection, self.connection.post("/v1/studies", {**implied, **spec}))

    def studies(self, **query: Any) -> list[Study]:
        """The latest studies; ``query`` as of `GET /v1/studies`."""
        return [Study(self.connection, each) for each in self.connection.get("/v1/studies", **query)["studies"]]

    def upload(self, path: str | Path, name: str | None = None) -> str:
        """Upload a file, or let the service fetch what is at an address; returns the id of the data set."""
        return str(self.connection.upload(path, name)["id"])

    def query(self, database: str, query: str, name: str | None = None) -> str:
        """Make the rows of a query a data set, in a database that the service's operator names; returns its id."""
        return str(self.connection.query(database, query, name)["id"])

    def restore(self, path: str | Path) -> Study:
        """Restore a study from the file that `Study.archive` has written, here or on another service."""
        return Study(self.connection, self.connection.restore(Path(path)))

    def close(self) -> None:
        """Close the connections."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Study:
    """A study of a service. ``latest`` is what the service told last of it."""

    def __init__(self, connection: HttpClient, latest: Mapping[str, Any]) -> None:
        self.connection = connection
        self.latest = latest
        self.id = int(latest["id"])

    @property
    def _path(self) -> str:
        return f"/v1/studies/{self.id}"

    def refresh(self) -> Mapping[str, Any]:
        """What the service tells of it now."""
        self.latest = self.connection.get(self._path)
        return self.latest

    @property
    def state(self) -> str:
        """`queued`, `running`, `paused`, `finalizing`, `finished`, `cancelled` or `failed`, now."""
        return str(self.refresh()["state"])

    def wait(self, timeout: float | None = None, *, poll: float = 1.0) -> str:
        """Wait until it has ended; returns its state.

        Raises:
            TimeoutError: It has not ended within ``timeout`` seconds.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        while (state := self.state) not in ENDED:
            if give_up is not None and time.monotonic() > give_up:
                raise TimeoutError(f"study {self.id} is still {state} after {timeout} s")
            time.sleep(poll)
        return state

    def result(self) -> StudyResult | ExternalStudyResult:
        """The result of a finished study, typed."""
        return self.connection.result(self.id)

    def frame(self) -> pd.DataFrame:
        """All trials, one a row: number, state, value, steps, and a column for every parameter. Needs pandas."""
        import pandas as pd

        rows = [
            {**{name: trial[name] for name in ("number", "state", "value", "epochs", "stop_reason")}, **trial["params"]}
            for trial in self._all_trials()
        ]
        return pd.DataFrame(rows)

    def _all_trials(self) -> Iterator[Mapping[str, Any]]:
        offset = 0
        while True:
            page = self.connection.get(f"{self._path}/trials", offset=offset, limit=_PAGE)
            yield from page["trials"]
            offset += _PAGE
            if offset >= page["total"]:
                return

    def model(self, path: str | Path) -> Path:
        """Download the trained model of a study that workers ran."""
        Path(path).write_bytes(self.connection.download(f"{self._path}/model"))
        return Path(path)

    def archive(self, path: str | Path, *, data: bool = False) -> Path:
        """Download the ended study as one file, with its uploaded data set or without, for `Client.restore`."""
        self.connection.save(f"{self._path}/archive", Path(path), data=data)
        return Path(path)

    def report(self, path: str | Path) -> Path:
        """Download the report; as Markdown or PDF where the name ends so."""
        form = {".md": "markdown", ".pdf": "pdf"}.get(Path(path).suffix, "html")
        Path(path).write_bytes(self.connection.download(f"{self._path}/report", format=form))
        return Path(path)

    def change(self, **parts: Any) -> None:
        """Change its ``priority`` or ``budget``, such as ``change(priority=5, budget={"trials": 900})``.

        What is not named stays as it is. A finished study that is given more goes on.
        """
        self.latest = self.connection.patch(self._path, parts)

    def share(self, *owners: str, everybody: bool = False) -> None:
        """Let these owners read it, or everybody, and nobody else; without arguments nobody."""
        self.connection.put(f"{self._path}/sharing", {"owners": owners, "everybody": everybody})

    def pause(self) -> None:
        """Hand out no more trials."""
        self.latest = self.connection.post(f"{self._path}/pause")

    def resume(self) -> None:
        """Undo `pause`."""
        self.latest = self.connection.post(f"{self._path}/resume")

    def cancel(self) -> None:
        """End it permanently."""
        self.latest = self.connection.post(f"{self._path}/cancel")

    def stop_trial(self, number: int) -> None:
        """End one trial, complete with its best value so far, while the search goes on; pruned if it has not begun."""
        self.connection.post(f"{self._path}/trials/{number}/stop")

    def trials(self, *, lease_seconds: float = 60.0) -> Generator[Trial, None, None]:
        """Trials for this program, until the study is over; the answer's final runs are among them.

        Use each as a context, which tells its end: ``with trial: …``. One that is left open when the next is asked for is
        told then; what is open when the loop is left, or the program ends, is asked again.

        Args:
            lease_seconds: After which its trials are given to another program if this one dies.
        """
        with closing(Session(self.connection, self.latest, lease_seconds)) as session:
            for trial in session.trials():
                yield trial
                with trial:
                    pass

    def run(
        self,
        function: Callable[[Trial], float | None],
        *,
        threads: int = 1,
        catch: type[Exception] | tuple[type[Exception], ...] = (),
        lease_seconds: float = 60.0,
    ) -> None:
        """Run all trials by a function, which returns a value or has reported some.

        Args:
            function: Given a trial.
            threads: How many trials at once.
            catch: Exceptions that end a trial only; others end the run as well. In both cases the trial is told as failed.
            lease_seconds: As of `trials`.
        """
        over = threading.Event()
        sessions = [Session(self.connection, self.latest, lease_seconds) for _ in range(threads)]

        def work(session: Session) -> None:
            with closing(session):
                for trial in session.trials():
                    self._one(function, trial, catch, over)
                    if over.is_set():
                        return

        with ThreadPoolExecutor(threads, thread_name_prefix="regsearch trial") as pool:
            try:
                for done in [pool.submit(work, session) for session in sessions]:
                    done.result()
            except BaseException:
                for session in sessions:  # what runs is given back, and learns of it
                    session.close()
                raise

    @staticmethod
    def _one(
        function: Callable[[Trial], float | None],
        trial: Trial,
        catch: type[Exception] | tuple[type[Exception], ...],
        over: threading.Event,
    ) -> None:
        try:
            with trial:
                value = function(trial)
                if value is not None:
                    trial.tell(value)
        except catch:
            return
        except BaseException:
            over.set()
            raise

    def __repr__(self) -> str:
        return f"Study({self.id}, {self.latest['name']!r}, {self.latest['state']})"

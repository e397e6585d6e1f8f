"""The client for asyncio: the same methods as coroutines, each run in a thread, as all of them wait for the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from service.client.study import Client, Study
from service.client.trials import Session, Trial

if TYPE_CHECKING:
    import pandas as pd

    from service.result import StudyResult
    from service.result.external import ExternalStudyResult


class AsyncClient:
    """See `Client`."""

    def __init__(self, url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout: float = 60.0) -> None:
        self._client = Client(url, token=token, timeout=timeout)

    async def study(self, spec: Mapping[str, Any] | int) -> AsyncStudy:
        """See `Client.study`."""
        return AsyncStudy(await asyncio.to_thread(self._client.study, spec))

    async def studies(self, **query: Any) -> list[AsyncStudy]:
        """See `Client.studies`."""
        return [AsyncStudy(each) for each in await asyncio.to_thread(self._client.studies, **query)]

    async def upload(self, path: str | Path, name: str | None = None) -> str:
        """See `Client.upload`."""
        return await asyncio.to_thread(self._client.upload, path, name)

    async def query(self, database: str, query: str, name: str | None = None) -> str:
        """See `Client.query`."""
        return await asyncio.to_thread(self._client.query, database, query, name)

    async def restore(self, path: str | Path) -> AsyncStudy:
        """See `Client.restore`."""
        return AsyncStudy(await asyncio.to_thread(self._client.restore, path))

    async def close(self) -> None:
        """See `Client.close`."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncStudy:
    """See `Study`, which is ``study``."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.id = study.id

    async def state(self) -> str:
        """See `Study.state`."""
        return str((await asyncio.to_thread(self.study.refresh))["state"])

    async def wait(self, timeout: float | None = None, *, poll: float = 1.0) -> str:
        """See `Study.wait`."""
        return await asyncio.to_thread(self.study.wait, timeout, poll=poll)

    async def result(self) -> StudyResult | ExternalStudyResult:
        """See `Study.result`."""
        return await asyncio.to_thread(self.study.result)

    async def frame(self) -> pd.DataFrame:
        """See `Study.frame`."""
        return await asyncio.to_thread(self.study.frame)

    async def archive(self, path: str | Path, *, data: bool = False) -> Path:
        """See `Study.archive`."""
        return await asyncio.to_thread(lambda: self.study.archive(path, data=data))

    async def change(self, **parts: Any) -> None:
        """See `Study.change`."""
        await asyncio.to_thread(lambda: self.study.change(**parts))

    async def cancel(self) -> None:
        """See `Study.cancel`."""
        await asyncio.to_thread(self.study.cancel)

    async def stop_trial(self, number: int) -> None:
        """See `Study.stop_trial`."""
        await asyncio.to_thread(self.study.stop_trial, number)

    async def trials(self, *, lease_seconds: float = 60.0) -> AsyncIterator[AsyncTrial]:
        """See `Study.trials`; each is a context: ``async with trial: …``."""
        session = Session(self.study.connection, self.study.latest, lease_seconds)
        trials = session.trials()
        try:
            while (trial := await asyncio.to_thread(next, trials, None)) is not None:
                mine = AsyncTrial(trial)
                yield mine
                async with mine:
                    pass
        finally:
            await asyncio.to_thread(session.close)


class AsyncTrial:
    """See `Trial`, which is ``trial``."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.params = trial.params
        self.seed = trial.seed
        self.purpose = trial.purpose

    async def report(self, step: int, value: float) -> bool:
        """See `Trial.report`."""
        return await asyncio.to_thread(self.trial.report, step, value)

    async def tell(self, value: float | None = None, **more: Any) -> None:
        """See `Trial.tell`."""
        await asyncio.to_thread(self.trial.tell, value, **more)

    async def fail(self, reason: str) -> None:
        """See `Trial.fail`."""
        await asyncio.to_thread(self.trial.fail, reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, asyncio.CancelledError):  # it is given back
            await asyncio.to_thread(self.trial.__exit__, kind, error, traceback)

"""One study, followed: a request that waits for news (long polling), and a stream of what happens (Server-Sent Events).

Reference: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Response, status
from fastapi.responses import StreamingResponse

from service.api.access import Caller, WithCaller
from service.api.bodies import JsonRoute
from service.api.changes import GONE, Changes
from service.api.feed import Feed, stream
from service.api.models import StudyId, StudyOut
from service.api.problems import answers
from service.api.streams import Streams
from service.errors import NotFound
from service.store import Store
from service.store.records import ENDED, FinishedTrial, StudyRecord

PING_SECONDS = 15.0
"""Between two signs of life of a stream in which nothing happens, so that no proxy closes it."""
_MOST_WAIT = 60.0
_DAY = 86_400.0
_NOT_MODIFIED: Any = {304: {"description": "Nothing new since the `ETag` of `If-None-Match`."}}
_STREAM: Any = {200: {"content": {"text/event-stream": {}}, "description": "Server-Sent Events"}}


def router(store: Store, streams: Streams) -> APIRouter:
    """A study, its events, and those of all studies."""
    routes = APIRouter(tags=["studies"], route_class=JsonRoute)
    changes = Changes(store)
    feed = Feed(store)
    readings = Readings(store)

    @routes.get("/v1/studies/{study_id}", response_model=StudyOut, responses={**_NOT_MODIFIED, **answers(404, 422)})
    async def get_study(
        study_id: StudyId,
        response: Response,
        wait: Annotated[float, Query(ge=0.0, le=_MOST_WAIT, description="Seconds to wait for news of it.")] = 0.0,
        if_none_match: Annotated[str | None, Header(description="The `ETag` of an earlier answer.")] = None,
    ) -> Any:
        """One study: its state, counts of trials, the best trial so far, the time left.

        With `wait` the answer comes when there is news since the earlier answer whose `ETag` is sent, or since the request.
        """
        tag, record = await to_thread.run_sync(store.studies.tagged, study_id)
        if wait > 0 and if_none_match in (None, etag(tag)) and await changes.after(study_id, tag, wait):
            tag, record = await to_thread.run_sync(store.studies.tagged, study_id)
        if if_none_match == etag(tag):
            return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"etag": etag(tag)})
        response.headers["etag"] = etag(tag)
        return StudyOut.of(record)

    @routes.get("/v1/events", response_class=StreamingResponse, responses={**_STREAM, **answers(422)})
    async def get_all_events(
        caller: WithCaller,
        last_event_id: Annotated[str | None, Header(description="Of the last event that was received.")] = None,
        since: Annotated[int | None, Query(ge=0, lt=2**31, description="The same, for those that set no header.")] = None,
        seconds: Annotated[float, Query(ge=0, le=_DAY, description="After which the stream ends.")] = _DAY,
    ) -> StreamingResponse:
        """What happens to all studies that the token may see, as it happens: a state, a new best trial, a change.

        Every event has an id, by which a stream is resumed where it was interrupted. Without one it begins with what happens
        next. What is older than the service keeps is left out.
        """
        begin = _number(last_event_id, since)
        return streams.answer(stream(feed, caller, begin, seconds, PING_SECONDS))

    @routes.get(
        "/v1/studies/{study_id}/events", response_class=StreamingResponse, responses={**_STREAM, **answers(404, 422)}
    )
    async def get_events(
        study_id: StudyId,
        caller: WithCaller,
        last_event_id: Annotated[str | None, Header(description="Of the last trial that was received.")] = None,
    ) -> StreamingResponse:
        """What happens in a study, as it happens: `study` (as `GET` gives it), `trial` when one has ended, `end`.

        Trials have ids, by which a stream is resumed where it was interrupted; without one it begins with the first trial.
        """
        await to_thread.run_sync(store.studies.owner, study_id)
        return streams.answer(study_stream(readings, changes, feed, caller, study_id, _number(last_event_id, None) or 0))

    return routes


def etag(tag: str) -> str:
    """The `ETag` of a study with this tag, which begins with its revision. A weak one: times in the answer differ."""
    return f'W/"{tag.partition("|")[0]}-{hashlib.sha256(tag.encode()).hexdigest()[:16]}"'


def _number(header: str | None, since: int | None) -> int | None:
    """The number in a `Last-Event-ID`, which may be anything, else another one."""
    return int(header) if header and header.isascii() and header.isdecimal() and len(header) < 10 else since


class Readings:
    """Reads what is new in studies for the streams of one process: once for those that ask for the same at the same time.

    Belongs to one event loop.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[tuple[int, str | None, int], asyncio.Task[News]] = {}

    async def after(self, study_id: int, owner: str | None, seen: int) -> News:
        """What an owner may see of a study now, with the trials after the ``seen``-th."""
        key = (study_id, owner, seen)
        if key not in self._running:
            self._running[key] = asyncio.create_task(to_thread.run_sync(self._read, *key))
            self._running[key].add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(self._running[key])

    def _read(self, study_id: int, owner: str | None, seen: int) -> News:
        """The tag is read before the trials, so that none is missed."""
        try:
            tag, record = self._store.studies.tagged(study_id, owner)
        except NotFound:
            return News(GONE, seen, "", "", _event("end", '{"state": "deleted"}'))
        trials = self._store.history.since(study_id, seen)
        return News(
            tag,
            trials[-1].seq if trials else seen,
            "".join(_event("trial", _json(record, trial), str(trial.seq)) for trial in trials),
            _event("study", StudyOut.of(record).model_dump_json()),
            _event("end", f'{{"state": "{record.state}"}}') if record.state in ENDED else "",
        )


@dataclass(frozen=True, slots=True)
class News:
    """What is new in a study: its tag, the number of the last trial, and the texts of trials, the study and its end."""

    tag: str
    seen: int
    trials: str
    study: str
    end: str


async def study_stream(
    readings: Readings, changes: Changes, feed: Feed, caller: Caller, study_id: int, seen: int
) -> AsyncGenerator[str, None]:
    """The events of a stream of one study."""
    yield "retry: 2000\n\n"
    told = None
    while not feed.has_ended(caller):
        news = await readings.after(study_id, caller.owner, seen)
        seen, end = news.seen, news.end
        text = news.trials + (news.study if news.tag != told else "") + end
        told = news.tag
        del news  # its texts are not kept by those that wait
        if text:
            yield text
        del text
        if end:
            return
        with feed.followed(caller):  # for the end of its token
            while not (await changes.after(study_id, told, PING_SECONDS) or feed.has_ended(caller)):
                yield ": nothing new\n\n"


def _event(name: str, data: str, number: str | None = None) -> str:
    lines = [f"event: {name}", *([f"id: {number}"] if number else []), f"data: {data}"]
    return "\n".join(lines) + "\n\n"


def _json(record: StudyRecord, trial: FinishedTrial) -> str:
    fields: dict[str, Any] = {"number": trial.number, "state": trial.state, "value": trial.value, "epochs": trial.epochs}
    return json.dumps({**fields, "metric": record.metric, "also": dict(trial.also), "params": dict(trial.params)})

"""A study followed: long polling by `ETag`, and Server-Sent Events that are resumed where they were interrupted."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from service.api import streams
from service.api.access import EVERYBODY
from service.api.changes import Changes
from service.api.events import Readings, study_stream
from service.api.feed import Feed, stream
from service.cli.supervisor import free_port
from service.client import Client
from service.store import Store
from service.store.records import StudyRecord
from tests.api.conftest import Serving
from tests.api.test_programs import SPEC, ask, send, submit


@pytest.fixture
def http(serving: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serving.url, timeout=60) as opened:
        yield opened


def submitted(serving: Serving) -> int:
    with Client(serving.url) as client:
        return client.study({**SPEC, "finals": False}).id


def later(seconds: float, call: Any) -> threading.Thread:
    thread = threading.Timer(seconds, call)
    thread.start()
    return thread


def test_nothing_new_is_not_sent_again(client: TestClient) -> None:
    study_id = submit(client)
    first = client.get(f"/v1/studies/{study_id}")
    again = client.get(f"/v1/studies/{study_id}", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    ask(client, study_id)
    changed = client.get(f"/v1/studies/{study_id}", headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


def test_an_answer_waits_for_news(serving: Serving, http: httpx.Client) -> None:
    path = f"/v1/studies/{submitted(serving)}"
    tag = http.get(path).headers["etag"]
    start = time.monotonic()
    assert http.get(path, params={"wait": 1}, headers={"if-none-match": tag}).status_code == 304
    assert time.monotonic() - start > 0.9
    for headers in ({"if-none-match": tag}, {}):
        verb = "pause" if headers else "cancel"
        thread = later(0.5, lambda verb=verb: httpx.post(f"{serving.url}{path}/{verb}"))
        answer = http.get(path, params={"wait": 60}, headers=headers)
        thread.join()
        assert answer.json()["state"] == {"pause": "paused", "cancel": "cancelled"}[verb]


def test_news_that_are_there_are_not_waited_for(serving: Serving, http: httpx.Client) -> None:
    path = f"/v1/studies/{submitted(serving)}"
    answer = http.get(path, params={"wait": 60}, headers={"if-none-match": 'W/"of another time"'})
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() < 30


def test_a_waiting_request_learns_that_its_study_is_deleted(serving: Serving, http: httpx.Client) -> None:
    path = f"/v1/studies/{submitted(serving)}"
    http.post(f"{path}/cancel")
    thread = later(0.5, lambda: httpx.delete(f"{serving.url}{path}"))
    assert http.get(path, params={"wait": 60}).status_code == 404
    thread.join()


def events(lines: Iterator[str]) -> Iterator[tuple[str, str | None, Any]]:
    """The events of a stream: name, id, data."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "event" in fields:
                yield fields["event"], fields.get("id"), json.loads(fields["data"])
            fields = {}
        name, _, rest = line.partition(":")
        if name:
            fields[name] = rest.strip()


def test_a_stream_has_what_happens_until_the_end(serving: Serving, http: httpx.Client) -> None:
    study_id = submitted(serving)

    def train() -> None:
        with Client(serving.url) as client:
            client.study(study_id).run(lambda trial: float(trial.params["hidden"]), threads=2)

    with http.stream("GET", f"/v1/studies/{study_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        thread = later(0.2, train)
        seen = list(events(answer.iter_lines()))
        thread.join()
    trials = [(number, data) for name, number, data in seen if name == "trial"]
    assert [number for number, _ in trials] == [str(place) for place in range(1, 13)]
    assert sorted(data["number"] for _, data in trials) == list(range(12))
    assert all(data["value"] == data["params"]["hidden"] for _, data in trials)
    states = [data["state"] for name, _, data in seen if name == "study"]
    assert states[0] in ("queued", "running")
    assert states[-1] == "finished"
    assert seen[-1] == ("end", None, {"state": "finished"})
    with http.stream("GET", f"/v1/studies/{study_id}/events", headers={"last-event-id": "9"}) as answer:
        resumed = list(events(answer.iter_lines()))
    assert [number for name, number, _ in resumed if name == "trial"] == ["10", "11", "12"]


def test_there_are_no_events_of_a_study_that_is_not_there(client: TestClient) -> None:
    assert client.get("/v1/studies/77/events").status_code == 404
    assert client.get("/v1/studies/77", params={"wait": 1}).status_code == 404
    assert client.get("/v1/studies/1", params={"wait": 61}).status_code == 422


def test_one_reader_serves_all_that_wait(client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study_id = submit(client)
    reads = []
    plain = store.studies.versions

    def counted(ids: list[int]) -> dict[int, str]:
        reads.append(len(ids))
        return plain(ids)

    monkeypatch.setattr(store.studies, "versions", counted)

    async def main() -> tuple[list[bool], int]:
        changes = Changes(store, poll_seconds=0.05)
        tag = plain([study_id])[study_id]
        waiting = [asyncio.create_task(changes.after(study_id, tag, 30.0)) for _ in range(500)]
        waiting += [asyncio.create_task(changes.after(study_id + 1, "", 0.3)) for _ in range(3)]
        await asyncio.sleep(0.3)
        before = len(reads)
        await asyncio.to_thread(store.studies.pause, study_id)
        found = await asyncio.gather(*waiting)
        return found, before

    found, before = asyncio.run(main())
    assert found == [True] * 500 + [False] * 3
    assert before < 20
    assert max(reads) == 2
    send(client, study_id, "ask")


def all_events(http: httpx.Client, **query: int) -> tuple[list[tuple[str, str | None, Any]], int]:
    """What a stream of all studies has, and the number with which it may be resumed."""
    text = http.get("/v1/events", params={"seconds": 0, **query}).text
    ids = [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]
    return [*events(iter(text.split("\n")))], ids[-1]


def test_what_happens_to_all_studies_is_told_as_it_happens(serving: Serving, http: httpx.Client) -> None:
    first, second = submitted(serving), submitted(serving)
    ids = {first, second}
    _, before = all_events(http)

    def change() -> None:
        for study_id in sorted(ids):
            httpx.post(f"{serving.url}/v1/studies/{study_id}/cancel")

    seen: list[tuple[str, str | None, Any]] = []
    with http.stream("GET", "/v1/events", headers={"last-event-id": str(before)}) as answer:
        thread = later(0.2, change)
        for event in events(answer.iter_lines()):
            seen += [event] if event[2]["study_id"] in ids else []
            if [name for name, _, _ in seen].count("study.cancelled") == 2:
                break
        thread.join()
    told = [(name, data["study_id"], data["state"]) for name, _, data in seen if name == "study.cancelled"]
    assert told == [("study.cancelled", each, "cancelled") for each in sorted(ids)]
    numbers = [int(number or 0) for _, number, _ in seen]
    assert numbers == sorted(set(numbers))
    again, last = all_events(http, since=numbers[-2])
    assert again[0] == seen[-1]
    assert last >= numbers[-1]


def test_a_stream_goes_on_where_another_process_left_it(tmp_path: Path) -> None:
    """Two API processes on one database; the second is started after the first has ended."""
    running = Serving(tmp_path / "home", free_port())
    submitted(running)
    with httpx.Client(base_url=running.url) as http:
        told, last = all_events(http, since=0)
        assert [name for name, _, _ in told] == ["study.queued"]
    running.stop()
    again = Serving(tmp_path / "home", free_port())
    with httpx.Client(base_url=again.url) as http:
        http.post("/v1/studies/1/cancel")
        told, _ = all_events(http, since=last)
        assert [(name, number) for name, number, _ in told] == [("study.cancelled", str(last + 1))]
        assert all_events(http, since=10**6)[0] == []
    again.stop()


def test_one_reader_serves_all_streams(client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study_id = submit(client)
    reads = 0
    plain = store.events.publish

    def counted() -> None:
        nonlocal reads
        reads += 1
        plain()

    monkeypatch.setattr(store.events, "publish", counted)

    begun = 0

    async def follow(feed: Feed) -> str:
        nonlocal begun
        async for text in stream(feed, EVERYBODY, None, 3600.0, 15.0):
            begun += text.startswith("retry")
            if "event: study.paused" in text:
                return text
        raise AssertionError("ended")

    async def main() -> tuple[set[str], int]:
        feed = Feed(store, poll_seconds=0.05)
        following = [asyncio.create_task(follow(feed)) for _ in range(300)]
        while begun < len(following):
            await asyncio.sleep(0.01)
        at_begin = reads
        await asyncio.sleep(0.3)
        before = reads - at_begin
        await asyncio.to_thread(store.studies.pause, study_id)
        return set(await asyncio.gather(*following)), before

    texts, before = asyncio.run(main())
    assert len(texts) == 1
    assert before < 20


def test_one_reading_serves_all_streams_of_a_study(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = submit(client)
    reads = 0
    plain = store.studies.tagged

    def counted(study_id: int, owner: str | None) -> tuple[str, StudyRecord]:
        nonlocal reads
        reads += 1
        return plain(study_id, owner)

    monkeypatch.setattr(store.studies, "tagged", counted)
    waiting = 0

    async def follow(following: AsyncGenerator[str, None]) -> str:
        nonlocal waiting
        async for text in following:
            waiting += '"state":"queued"' in text
            if '"state":"paused"' in text:
                await following.aclose()
                return text
        raise AssertionError("ended")

    async def main() -> tuple[set[str], int]:
        feed, changes, readings = Feed(store), Changes(store, poll_seconds=0.05), Readings(store)
        made = [study_stream(readings, changes, feed, EVERYBODY, study_id, 0) for _ in range(300)]
        following = [asyncio.create_task(follow(each)) for each in made]
        while waiting < len(following):
            await asyncio.sleep(0.01)
        before = reads
        await asyncio.to_thread(store.studies.pause, study_id)
        return set(await asyncio.gather(*following)), reads - before

    texts, read = asyncio.run(main())
    assert len(texts) == 1
    assert read < 20


def test_a_stream_whose_client_has_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.0)
    ended, sent = [], []

    async def texts() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield ": nothing new\n\n"
                await asyncio.sleep(0.01)
        finally:
            ended.append(True)

    async def main() -> None:
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 3:
                gone.set()

        async with asyncio.timeout(60):
            await streams.Streams().send(texts(), receive, send)

    asyncio.run(main())
    assert ended == [True]
    assert len(sent) == 3


def test_streams_end_when_the_process_does(tmp_path: Path) -> None:
    running = Serving(tmp_path / "home", free_port())
    study_id = submitted(running)
    with httpx.Client(base_url=running.url, timeout=60) as http:
        for path in ("/v1/events", f"/v1/studies/{study_id}/events"):
            with http.stream("GET", path) as answer:
                lines = answer.iter_lines()
                assert next(lines) == "retry: 2000"
                running.process.send_signal(signal.SIGTERM)
                assert "error" not in [*lines]  # it ends as it should, or this raises
                assert running.process.wait(60) in (0, -signal.SIGTERM)
            running.client.close()
            if path == "/v1/events":
                running = Serving(tmp_path / "home", int(running.url.rpartition(":")[2]))
    assert not [line for line in running.lines() if line["level"].lower() == "error"]

"""Streams of events tell what their token may see, and end with it."""

from __future__ import annotations

import asyncio

from fastapi.testclient import TestClient

from service.api import feed
from service.api.access import Caller
from service.api.changes import Changes
from service.api.events import Readings, study_stream
from service.store import Store
from tests.security.conftest import Owner


def test_a_stream_has_the_owners_events_only(client: TestClient, ann: Owner, bob: Owner) -> None:
    client.post(f"/v1/studies/{bob.study}/cancel", headers=bob.headers("submit"))
    client.post(f"/v1/studies/{ann.study}/cancel", headers=ann.headers("submit"))
    query = {"since": 0, "seconds": 0}
    told = client.get("/v1/events", params=query, headers=ann.headers("read")).text
    assert "of ann" in told
    assert "bob" not in told
    whole = client.get("/v1/events", params=query, headers=ann.headers("admin")).text
    assert "of ann" in whole
    assert "of bob" in whole


def test_a_stream_ends_with_its_token(store: Store, ann: Owner) -> None:
    token = store.tokens.find(ann.tokens["read"])
    assert token is not None
    caller = Caller("ann", token)

    async def main() -> list[str]:
        streams = feed.Feed(store, poll_seconds=0.02, token_seconds=0.02)
        following = feed.stream(streams, caller, None, 60.0, 0.05)
        first = [await anext(following), await anext(following)]
        await asyncio.to_thread(store.tokens.revoke, token.id)
        return [*first, *[text async for text in following]]

    told = asyncio.run(main())
    assert told[0].startswith("retry")
    assert told[1].startswith(":")


def test_a_stream_of_a_shared_study_ends_with_the_sharing(store: Store, ann: Owner, bob: Owner) -> None:
    token = store.tokens.find(ann.tokens["read"])
    store.sharing.share_study(bob.study, ["ann"])

    async def main() -> list[str]:
        streams, changes = feed.Feed(store, poll_seconds=0.02), Changes(store, poll_seconds=0.02)
        following = study_stream(Readings(store), changes, streams, Caller("ann", token), bob.study, 0)
        first = [await anext(following), await anext(following)]
        await asyncio.to_thread(store.sharing.share_study, bob.study, [])
        return [*first, *[text async for text in following]]

    told = asyncio.run(main())
    assert "of bob" in told[1]
    assert told[2:] == ['event: end\ndata: {"state": "deleted"}\n\n']

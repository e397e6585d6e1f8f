"""Webhooks reach the public internet only, tell their owner's events only, and keep their secrets."""

from __future__ import annotations

import socket
from typing import Any

import httpcore
import pytest
from fastapi.testclient import TestClient

from service.store import Store
from service.webhooks.sending import Forbidden, Guarded, Sender
from tests.security.conftest import Owner


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "2130706433", "0x7f.1", "[::ffff:10.0.0.1]"]
)
def test_an_address_that_only_the_service_can_reach_is_not_connected_to(host: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    sender = Sender(private=False, seconds=5)
    sent = sender.send(f"http://{host}:{port}/", {}, b"{}")
    sender.close()
    assert sent.status is None
    assert sent.error is not None
    assert "not public" in sent.error
    listening.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listening.accept()
    listening.close()


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers the first question with a public address, and every other with a private one."""
    asked, connected = [], []
    answers = iter(["93.184.216.34", "127.0.0.1"])

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(_: Any, host: str, *__: Any, **___: Any) -> Any:
        connected.append(host)
        raise httpcore.ConnectError("as far as it goes")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(httpcore.ConnectError):
        Guarded().connect_tcp("rebinding.example", 443)
    with pytest.raises(Forbidden):
        Guarded().connect_tcp("rebinding.example", 443)
    assert (len(asked), connected) == (2, ["93.184.216.34"])


def test_a_webhook_is_told_of_its_owners_studies(client: TestClient, store: Store, ann: Owner, bob: Owner) -> None:
    for owner, scope, everyone, status in (
        (ann, "submit", True, 422),
        (ann, "submit", False, 201),
        (ann, "admin", True, 201),
    ):
        given = {"url": "https://127.0.0.1/", "events": ["study.cancelled"], "everyone": everyone}
        answer = client.post("/v1/webhooks", json=given, headers=owner.headers(scope))
        assert answer.status_code == status, answer.text
    own, whole = (each["id"] for each in client.get("/v1/webhooks", headers=ann.headers("admin")).json()[1::-1])
    client.post(f"/v1/studies/{bob.study}/cancel", headers=bob.headers("submit"))
    client.post(f"/v1/studies/{ann.study}/cancel", headers=ann.headers("submit"))
    store.events.publish()
    for hook, studies in ((own, {ann.study}), (whole, {ann.study, bob.study})):
        page = client.get(f"/v1/webhooks/{hook}/deliveries", headers=ann.headers("admin")).json()
        told = {each["payload"]["data"]["study_id"] for each in page["deliveries"]}
        assert told - {ann.ended, bob.ended} == studies
    mine = client.get("/v1/webhooks", headers=bob.headers("submit"))
    assert {each["owner"] for each in mine.json()} == {"bob"}
    assert "whsec_" not in mine.text

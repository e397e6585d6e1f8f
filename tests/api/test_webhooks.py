"""Webhooks, by a receiver that answers as told: signed, sent again, by one of several processes, at least once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from standardwebhooks import Webhook, WebhookVerificationError

from service.api.app import create_app
from service.settings import Settings
from service.store import Store
from service.store import tables as t
from service.webhooks import courier as courier_module
from service.webhooks.courier import PAUSES, TO_EACH, Courier
from service.webhooks.sending import AT_ONCE, Sender
from tests.api.conftest import Serving
from tests.api.test_programs import submit


class Receiver:
    """A web server that keeps what it is sent; ``status`` is what it answers with, once it is ``opened``."""

    def __init__(self, opened: threading.Event | None = None) -> None:
        self.status = 204
        self.received: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name is the library's
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                if opened is not None:
                    opened.wait(600)
                self.send_response(receiver.status)
                self.send_header("location", f"{receiver.url}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def messages(self) -> list[Any]:
        return [json.loads(body) for _, body in self.received]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """Without what the application does by itself: the tests carry it out."""
    return TestClient(app, base_url="http://localhost")


@pytest.fixture
def turn(store: Store) -> Iterator[Callable[[], int]]:
    sender = Sender(private=True, seconds=10)
    courier = Courier(store, sender, stretch=lambda: 0.0)

    def to_the_end() -> int:
        taken = courier.turn()
        courier.finish()
        return taken

    yield to_the_end
    courier.close()
    sender.close()


def made(client: TestClient, receiver: Receiver, **given: Any) -> Any:
    answer = client.post("/v1/webhooks", json={"url": receiver.url, **given})
    assert answer.status_code == 201, answer.text
    return answer.json()


def due_now(store: Store) -> None:
    """Let the time pass after which messages are sent again."""
    waiting = t.deliveries.c.state == "waiting"
    store.database.write(lambda connection: connection.execute(t.deliveries.update().where(waiting).values(next_at=1.0)))


def log_of(client: TestClient, hook: Any) -> list[Any]:
    found: list[Any] = client.get(f"/v1/webhooks/{hook['id']}/deliveries").json()["deliveries"]
    return found


def test_a_receiver_is_told_what_it_wants_to_know(client: TestClient, receiver: Receiver, turn: Callable[[], int]) -> None:
    hook = made(client, receiver, events=["study.cancelled", "study.paused"])
    assert hook["secret"].startswith("whsec_")
    assert "secret" not in client.get(f"/v1/webhooks/{hook['id']}").json()
    study_id = submit(client)
    for verb in ("pause", "resume", "cancel"):
        client.post(f"/v1/studies/{study_id}/{verb}")
    assert turn() == 2
    assert sorted(each["type"] for each in receiver.messages) == ["study.cancelled", "study.paused"]
    for headers, body in receiver.received:
        message = Webhook(hook["secret"]).verify(body, headers)
        assert message["data"]["study_id"] == study_id
        with pytest.raises(WebhookVerificationError):
            Webhook(hook["secret"]).verify(body + b" ", headers)
    assert turn() == 0
    assert {(each["state"], each["status"], each["attempts"]) for each in log_of(client, hook)} == {("delivered", 204, 1)}


def test_what_is_not_received_is_sent_again(
    client: TestClient, store: Store, receiver: Receiver, turn: Callable[[], int]
) -> None:
    hook = made(client, receiver)
    client.post(f"/v1/webhooks/{hook['id']}/test")
    receiver.status = 503
    assert turn() == 1
    assert turn() == 0, "not before its time"
    (delivery,) = log_of(client, hook)
    assert (delivery["state"], delivery["status"], delivery["attempts"]) == ("waiting", 503, 1)
    assert client.get(f"/v1/webhooks/{hook['id']}").json()["failing_since"] is not None
    receiver.status = 302
    due_now(store)
    turn()
    receiver.status = 200
    due_now(store)
    turn()
    assert [each["state"] for each in log_of(client, hook)] == ["delivered"]
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert len({body for _, body in receiver.received}) == 1
    assert len(receiver.received) == 3, "redirects are not followed"
    assert client.get(f"/v1/webhooks/{hook['id']}").json()["failing_since"] is None


def test_a_message_is_given_up_after_the_last_attempt_and_sent_again_on_demand(
    client: TestClient, store: Store, receiver: Receiver, turn: Callable[[], int]
) -> None:
    hook = made(client, receiver)
    client.post(f"/v1/webhooks/{hook['id']}/test")
    receiver.status = 500
    for _ in range(len(PAUSES) + 1):
        due_now(store)
        assert turn() == 1
    due_now(store)
    assert turn() == 0
    (failed,) = log_of(client, hook)
    assert (failed["state"], failed["attempts"]) == ("failed", len(PAUSES) + 1)
    receiver.status = 204
    again = client.post(f"/v1/webhooks/{hook['id']}/deliveries/{failed['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "waiting")
    turn()
    assert log_of(client, hook)[0]["state"] == "delivered"


def test_a_process_that_dies_while_it_sends_loses_nothing(
    client: TestClient, store: Store, receiver: Receiver, turn: Callable[[], int]
) -> None:
    hook = made(client, receiver)
    client.post(f"/v1/webhooks/{hook['id']}/test")
    (taken,) = store.webhooks.take(10, 60.0, failing=False, each=10)  # by a process that tells nothing of it any more
    assert turn() == 0, "another process has it"
    due_now(store)
    assert turn() == 1
    store.webhooks.tell(taken, received=False, status=500, error=None, ms=1.0, again_in=None)  # too late
    assert log_of(client, hook)[0]["state"] == "delivered"


def test_a_receiver_that_does_not_answer_delays_no_other(client: TestClient, store: Store, receiver: Receiver) -> None:
    """The messages of the silent ones are the oldest, and more than there are threads."""
    opened = threading.Event()
    silent = [Receiver(opened) for _ in range(2 * AT_ONCE // TO_EACH)]
    hooks = [made(client, each) for each in silent]
    store.database.write(lambda connection: connection.execute(t.webhooks.update().values(failing_since=time.time())))
    sender = Sender(private=True, seconds=600)
    courier = Courier(store, sender)
    try:
        for _ in range(TO_EACH):
            for hook in hooks:
                client.post(f"/v1/webhooks/{hook['id']}/test")
        assert courier.turn() == len(silent), "one to each, as it fails"
        assert courier.turn() == 1, "nobody has answered"
        quick = made(client, receiver)
        for _ in range(3 * TO_EACH):
            client.post(f"/v1/webhooks/{quick['id']}/test")
        give_up = time.monotonic() + 60
        while len(receiver.received) < 3 * TO_EACH and time.monotonic() < give_up:
            courier.turn()
        assert len(receiver.received) == 3 * TO_EACH
        assert [len(each.received) for each in silent] == [1] * len(silent)
    finally:
        opened.set()
        courier.finish()
        courier.close()
        sender.close()
        for each in silent:
            each.stop()


def test_a_webhook_that_fails_for_days_is_disabled(
    client: TestClient, store: Store, receiver: Receiver, turn: Callable[[], int]
) -> None:
    hook = made(client, receiver)
    receiver.status = 500
    for _ in range(2):
        client.post(f"/v1/webhooks/{hook['id']}/test")
    turn()
    store.database.write(lambda connection: connection.execute(t.webhooks.update().values(failing_since=1.0)))
    due_now(store)
    turn()
    found = client.get(f"/v1/webhooks/{hook['id']}").json()
    assert (found["state"], found["reason"]) == ("disabled", "nothing was received for 5 days")
    assert {each["state"] for each in log_of(client, hook)} == {"failed"}
    assert client.post(f"/v1/webhooks/{hook['id']}/test").status_code == 409
    enabled = client.patch(f"/v1/webhooks/{hook['id']}", json={"enabled": True}).json()
    assert (enabled["state"], enabled["reason"], enabled["failing_since"]) == ("active", None, None)
    receiver.status = 410
    client.post(f"/v1/webhooks/{hook['id']}/test")
    turn()
    assert "410" in client.get(f"/v1/webhooks/{hook['id']}").json()["reason"]


def test_for_a_while_requests_are_signed_by_the_old_secret_too(
    client: TestClient, store: Store, receiver: Receiver, turn: Callable[[], int]
) -> None:
    hook = made(client, receiver)
    path = f"/v1/webhooks/{hook['id']}"
    secrets = [hook["secret"], *(client.post(f"{path}/rotate", json={}).json()["secret"] for _ in range(2))]
    assert len(set(secrets)) == 3
    for at_once in (False, True):
        valid = secrets[1:]
        if at_once:
            valid = [client.post(f"{path}/rotate", json={"overlap_hours": 0}).json()["secret"]]
        client.post(f"{path}/test")
        turn()
        headers, body = receiver.received[-1]
        assert len(headers["webhook-signature"].split()) == len(valid)
        for secret in valid:
            Webhook(secret).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(secrets[0]).verify(body, headers)


@pytest.mark.parametrize(
    "url", ["ftp://example.org/", "example.org", "http://", "https://user:pass@example.org/", "file:///etc"]
)
def test_an_address_that_is_none_of_a_web_server_is_refused(client: TestClient, url: str) -> None:
    answer = client.post("/v1/webhooks", json={"url": url})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "url"


def test_processes_send_by_themselves_and_the_command_line_shows_it(
    tmp_path: Any, store: Store, settings: Settings, receiver: Receiver
) -> None:
    """Two applications on one database: each message is sent once."""
    open_settings = settings.model_copy(update={"webhooks_private": True})
    apps = [create_app(store, open_settings) for _ in range(2)]
    with (
        TestClient(apps[0], base_url="http://localhost") as first,
        TestClient(apps[1], base_url="http://localhost") as second,
    ):
        hook = made(first, receiver, events=["*"])
        ids = [submit(each) for each in (first, second, first)]
        give_up = time.monotonic() + 120
        while len(receiver.received) < 3 and time.monotonic() < give_up:
            time.sleep(0.05)
        while any(each["state"] == "waiting" for each in log_of(first, hook)) and time.monotonic() < give_up:
            time.sleep(0.05)
    assert sorted(each["data"]["study_id"] for each in receiver.messages) == ids
    assert {each["attempts"] for each in log_of(TestClient(apps[0], base_url="http://localhost"), hook)} == {1}


def test_the_command_line_has_webhooks(serving: Serving, receiver: Receiver) -> None:
    added = serving.run("webhook", "add", receiver.url, "--event", "study.best", "--description", "our chat")
    assert (added.returncode, added.stdout.startswith("whsec_")) == (0, True), added.stderr
    found = json.loads(serving.run("webhook", "list", "--json").stdout)[0]
    assert (found["url"], found["events"]) == (receiver.url, ["study.best"])
    hook = str(found["id"])
    assert serving.run("webhook", "test", hook).returncode == 0
    give_up = time.monotonic() + 60
    while "REGSEARCH_WEBHOOKS_PRIVATE" not in (told := serving.run("webhook", "log", hook).stdout):
        assert time.monotonic() < give_up, told
        time.sleep(0.2)
    assert receiver.received == [], "loopback is no public address"
    for words in (("rotate", hook), ("disable", hook), ("enable", hook), ("redeliver", hook, "1"), ("delete", hook)):
        assert serving.run("webhook", *words).returncode == 0, words
    assert json.loads(serving.run("webhook", "list", "--json").stdout) == []


def test_the_pauses_grow() -> None:
    assert list(courier_module.PAUSES) == sorted(courier_module.PAUSES)
    assert sum(courier_module.PAUSES) < courier_module.LASTING_SECONDS

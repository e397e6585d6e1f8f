"""A spot machine's notice: the three clouds' metadata services, as they document their answers, by a server of our own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from workers.notice import CLOUDS, Cloud, is_to_go, watch


class Metadata(ThreadingHTTPServer):
    """A machine that stays until ``going`` is set."""

    going = False

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """What is answered to a request: status and text."""
        match path.partition("?")[0]:
            case "/latest/api/token":
                return (200, "secret") if headers.get("x-aws-ec2-metadata-token-ttl-seconds") else (400, "")
            case "/latest/meta-data/spot/instance-action":
                if headers.get("x-aws-ec2-metadata-token") != "secret":
                    return 401, ""
                return (200, '{"action": "terminate", "time": "2026-11-30T08:22:00Z"}') if self.going else (404, "")
            case "/computeMetadata/v1/instance/preempted":
                return (200, "TRUE" if self.going else "FALSE") if headers.get("metadata-flavor") == "Google" else (403, "")
            case "/metadata/scheduledevents":
                events = [
                    {"EventId": "1", "EventType": "Preempt" if self.going else "Freeze", "ResourceType": "VirtualMachine"}
                ]
                return (
                    (200, json.dumps({"DocumentIncarnation": 1, "Events": events})) if headers.get("metadata") else (400, "")
                )
            case _:
                return 404, ""


class Handler(BaseHTTPRequestHandler):
    """Answers with what the server knows."""

    server: Metadata

    def do_GET(self) -> None:
        status, text = self.server.answer(self.path, {name.lower(): value for name, value in self.headers.items()})
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    server = Metadata(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_notice_is_heard_once_there_is_one(metadata: Metadata, cloud: Cloud) -> None:
    url = f"http://127.0.0.1:{metadata.server_port}"
    with httpx.Client(base_url=url) as client:
        assert not is_to_go(cloud, client)
    asked = threading.Event()
    thread = watch(cloud, asked.set, url, seconds=0.01)
    assert not asked.wait(0.1)
    metadata.going = True
    assert asked.wait(60)
    thread.join(60)
    assert not thread.is_alive()


def test_a_machine_without_such_a_service_works_on() -> None:
    asked = threading.Event()
    watch("aws", asked.set, "http://127.0.0.1:9", seconds=0.01)
    assert not asked.wait(0.2)

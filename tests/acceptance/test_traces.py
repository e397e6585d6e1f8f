"""Traces from submit to the answer, as a real OTLP receiver gets them from real processes; and no cost without one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.settings import Settings
from service.tracing import TracingUnavailable, carried, set_up_tracing, span, tracing
from tests.acceptance.conftest import Service, wait_for

TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SPEC: dict[str, Any] = {
    "data": {"dataset": "wine"},
    "model": {"widths": [8]},
    "space": {"preset": "off", "lr": {"low": 1e-3, "high": 1e-1, "log": True}},
    "budget": {"trials": 6, "epochs": 3, "finalists": 1, "seeds": 2},
}


class Receiver:
    """An OTLP receiver over HTTP that keeps all spans."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.spans: list[tuple[str, Any]] = []

    def add(self, body: bytes) -> None:
        """One request of an exporter."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], each) for each in scope.spans]


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            receiver.add(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_study_is_one_trace_from_its_submit_to_its_answer(tmp_path: Path) -> None:
    with receiving() as receiver:
        service = Service(tmp_path / "home", traces_url=receiver.url, log_format="json", log_level="info")
        try:
            headers = {"traceparent": f"00-{TRACE}-{SENDER}-01"}
            study = httpx.post(f"{service.url}/v1/studies", json=SPEC, headers=headers, trust_env=False, timeout=60).json()
            wait_for(lambda: service.client.get(f"/v1/studies/{study['id']}")["state"] == "finished")
            (worker,) = service.client.get("/v1/workers")
        finally:
            service.stop()
    found = [(name, each) for name, each in receiver.spans if each.trace_id.hex() == TRACE]
    by_name = {each.name: (name, each) for name, each in found}
    (submit,) = (each for name, each in found if name == "regsearch-api")
    assert (submit.name, submit.parent_span_id.hex()) == ("POST /v1/studies", SENDER)
    workers = {each.name for name, each in found if name == "regsearch-worker"}
    assert workers >= {"claim", "search", "load", "plan", "ask", "sample", "train stack", "report"}
    assert workers >= {"finalize", "evaluate", "deliver", "finish"}
    for top in ("claim", "search", "finalize"):
        assert by_name[top][1].parent_span_id in (submit.span_id, by_name["search"][1].span_id)
    ids = {each.span_id for _, each in found} | {bytes.fromhex(SENDER)}
    assert all(each.parent_span_id in ids for _, each in found)
    told = sum(_numbers(each).get("regsearch.told", 0) for _, each in found if each.name == "report")
    assert told == SPEC["budget"]["trials"]
    lines = [json.loads(line) for line in _log(service.home) if line.startswith("{")]
    joined = Counter((line.get("study"), line.get("worker"), line.get("trace_id")) for line in lines)
    assert joined[study["id"], worker["id"], TRACE] >= 2


def _numbers(span: Any) -> dict[str, int]:
    return {each.key: each.value.int_value for each in span.attributes}


def _log(home: Path) -> list[str]:
    return [line for path in (home / "logs").iterdir() for line in path.read_text().splitlines()]


def test_without_an_address_nothing_is_made_or_imported() -> None:
    code = """
import sys
import service.api.app, workers.worker
from service.settings import Settings
from service.tracing import set_up_tracing, span
set_up_tracing(Settings(), "none")
with span("nothing"):
    pass
made_with = ("opentelemetry.sdk", "opentelemetry.exporter")  # other libraries import the API
sys.exit([name for name in sys.modules if name.startswith(made_with)] or None)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not tracing()
    assert carried() == {}
    assert span("one") is span("another", study=1)


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match=r"pip install 'regsearch\[otel\]'"):
        set_up_tracing(Settings(traces_url="http://localhost:4318"), "none")

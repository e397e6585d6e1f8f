"""Real servers that data are fetched from: an S3 server in a process of its own, and a web server that misbehaves."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from service.cli.supervisor import free_port

SECRET = "s3cr3t-of-the-operator"


class S3:
    """An S3 server, moto's, that anybody may write to."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{self.url}/moto-api/", trust_env=False)
            except httpx.TransportError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)
            else:
                return

    @property
    def environment(self) -> Mapping[str, str]:
        """With which clients find it, and are known to it."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return {"AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1", **dict.fromkeys(names, SECRET)}

    def fill(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Make a bucket with these objects, by key."""
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            client.put(f"/{bucket}").raise_for_status()
            for key, content in objects.items():
                client.put(f"/{bucket}/{key}", content=content).raise_for_status()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def web_server(answers: Mapping[str, Answer], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A web server on loopback, by TLS with a context; gives its address. It answers a GET of a path as told."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the name is the library's
            answers.get(self.path.partition("?")[0], missing)(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients that hang up are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def missing(request: BaseHTTPRequestHandler) -> None:
    """There is nothing."""
    status(404)(request)


def status(code: int, **headers: str) -> Answer:
    """An answer without content."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer


def leading_to(address: str) -> Answer:
    """A redirect."""
    return status(302, location=address)


def content(body: bytes, **headers: str) -> Answer:
    """A file."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def breaking_off(body: bytes, after: int, mark: str = "") -> Answer:
    """A file whose connection breaks after so many bytes; with a mark the rest can be asked for."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("range")
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and request.headers["if-range"] == mark else 0
        request.send_response(206 if begin else 200)
        if begin:
            request.send_header("content-range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        if mark:
            request.send_header("etag", mark)
            request.send_header("accept-ranges", "bytes")
        request.send_header("content-length", str(len(body) - begin))
        request.end_headers()
        request.wfile.write(body[begin : begin + after])
        request.close_connection = True

    return answer


def changing(body: bytes) -> Answer:
    """A file that is another one whenever its connection breaks, which is always."""
    answers = iter([breaking_off(body, 500, f'"v{number}"') for number in range(99)])

    def answer(request: BaseHTTPRequestHandler) -> None:
        next(answers)(request)

    return answer


def without_end(request: BaseHTTPRequestHandler) -> None:
    """A file that goes on and on."""
    request.send_response(200)
    request.send_header("transfer-encoding", "chunked")
    request.end_headers()
    rows = b"1,2,3\n" * 4000
    while True:
        request.wfile.write(f"{len(rows):x}\r\n".encode() + rows + b"\r\n")

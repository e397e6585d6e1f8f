"""What a browser may be made to do by a page of somebody else: requests for a foreign host, writes from a foreign origin.

A page can send requests to 127.0.0.1, by a form or a script, and with a host name of its own that it lets point there
(DNS rebinding) it can read the answers. Browsers say in `Host`, `Origin` and `Sec-Fetch-Site` where a request comes from.
Reference: OWASP, "Cross-Site Request Forgery Prevention Cheat Sheet".
"""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem
from service.settings import Settings, is_loopback

_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of a request of our own page, or that a person has typed."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "content-security-policy": "frame-ancestors 'none'; base-uri 'none'; object-src 'none'; form-action 'self'",
}
"""Of every answer that has none of its own."""


def host_of(netloc: str) -> str:
    """The host of `host:port`, in lower case and without brackets.

    >>> [host_of(each) for each in ("LocalHost:8000", "[::1]:80", "example.org", "")]
    ['localhost', '::1', 'example.org', '']
    """
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


class ForeignRequests:
    """ASGI middleware: 421 for a foreign host, 403 for a write from a foreign origin, protective headers for all answers.

    While the service listens on a loopback address only, its own hosts are the loopback names and those that the operator
    has named; else any host is, unless the operator has named some.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        public = [host_of(urlsplit(settings.public_url).netloc)] if settings.public_url else []
        self._named = frozenset([*(host.lower() for host in settings.allowed_hosts), *public])
        self._any = not is_loopback(settings.host) and not settings.allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answered.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host_of(host)):
            detail = f"the host {host!r} is not this service's; the operator allows more with REGSEARCH_ALLOWED_HOSTS"
            await problem(Request(scope), HTTPStatus.MISDIRECTED_REQUEST, detail)(scope, receive, sending)
        elif scope["method"] not in _READ_METHODS and (origin := self._foreign_origin(headers, host)):
            detail = f"a page of {origin} may not change anything here"
            await problem(Request(scope), HTTPStatus.FORBIDDEN, detail)(scope, receive, sending)
        else:
            await self._app(scope, receive, sending)

    def _is_own(self, host: str) -> bool:
        return self._any or is_loopback(host) or _matches(host, self._named)

    def _foreign_origin(self, headers: Headers, host: str) -> str | None:
        """The foreign origin of a request; None if it comes from our own pages, or from no page."""
        origin = headers.get("origin")
        if origin is None:
            return None if headers.get("sec-fetch-site", "none") in _OWN else "another site"
        netloc = urlsplit(origin).netloc if origin != "null" else ""
        # A proxy that ends TLS keeps the host; one that changes it is named by the operator.
        if netloc and (netloc.lower() == host.lower() or _matches(host_of(netloc), self._named)):
            return None
        return origin


def _matches(host: str, named: Collection[str]) -> bool:
    return host in named or any(each.startswith("*.") and host.endswith(each[1:]) for each in named)

"""The audit log: every request that would change something is written down before it is answered, with who has sent it.

Left out are reads, dry runs, what programs tell of their trials (which have records of their own), and requests that reach
nothing: without a valid token, of what is not there, or refused as too many. A change is committed before it is written
down: where the database goes away in between, the process' log has the entry instead.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.access import DEVICE_BEGIN, DEVICE_TOKEN, Caller, WithCaller
from service.api.bodies import storable_text
from service.api.problems import answers
from service.api.queries import LINKED, WithPage
from service.errors import DatabaseUnavailable
from service.store import Store
from service.store.actors import NOBODY, AuditEntry, AuditRecord

log = logging.getLogger(__name__)

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_NOTHING_CHANGED = frozenset({401, 404, 405, 429, 503})
"""Statuses of requests that reached nothing."""
_UNWRITTEN = frozenset({"/v1/studies/dry-run", "/login", "/logout", DEVICE_BEGIN, DEVICE_TOKEN})


class AuditLog:
    """ASGI middleware that writes the log. It is outside of the one that finds the caller."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._together = _Together(store)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; write before the answer is sent."""
        if scope["type"] != "http" or not _changes(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        written = False

        async def sending(message: Message) -> None:
            nonlocal written
            if message["type"] == "http.response.start" and not written:
                written = True
                location = Headers(raw=message.get("headers", [])).get("location", "")
                await self._write(scope, message["status"], location)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            if not written:
                await self._write(scope, 500, "")
            raise

    async def _write(self, scope: Scope, status: int, location: str) -> None:
        if status in _NOTHING_CHANGED:
            return
        state = scope.get("state", {})
        caller: Caller | None = state.get("caller")
        route = str(getattr(scope.get("route"), "path", scope["path"]))
        place = location if status == 201 and location.startswith("/") else scope["path"]
        entry = AuditEntry(
            by=caller.actor if caller else NOBODY,
            method=scope["method"],
            route=route,
            object=place.removeprefix("/").removeprefix("v1/"),
            status=status,
            request_id=state.get("request_id", ""),
        )
        await self._together.write(entry)


class _Together:
    """Writes entries of requests that are answered at the same time in one transaction. Belongs to one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[AuditEntry, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, entry: AuditEntry) -> None:
        """Write an entry; it is written, or in the process' log, when this returns."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await written

    async def _write(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting, []
            try:
                await to_thread.run_sync(self._store.audit.write, *(entry for entry, _ in some))
            except DatabaseUnavailable:
                for entry, _ in some:
                    log.error("not in the audit log, as the database is away: %s", entry)
            except BaseException as error:
                for _, written in some:
                    if not written.done():
                        written.set_exception(error)
                raise
            for _, written in some:
                if not written.done():  # its request may have been cancelled
                    written.set_result(None)


def _changes(method: str, path: str) -> bool:
    """Whether a request asks for a change that is written down.

    >>> [_changes("POST", path) for path in ("/v1/studies", "/v1/studies/3/trials:tell", "/v1/studies/dry-run")]
    [True, False, False]
    >>> _changes("GET", "/v1/studies"), _changes("DELETE", "/v1/tokens/3")
    (False, True)
    """
    return method not in _READS and path not in _UNWRITTEN and "/trials:" not in path


class AuditOut(BaseModel):
    """A change that was asked for."""

    id: int
    at: datetime
    owner: str | None = Field(description="Whose token it was; null where the service asks for none.")
    token: int | None = Field(description="Its id.")
    method: str
    route: str
    object: str = Field(description="What it was about: its path without `/v1/`, of something new its own.")
    status: int = Field(description="Of the answer; with 4xx nothing was changed.")
    request_id: str

    @classmethod
    def of(cls, record: AuditRecord) -> AuditOut:
        """The response for a record."""
        entry = record.entry
        plain = {name: getattr(entry, name) for name in ("method", "route", "object", "status", "request_id")}
        return cls(id=record.id, at=record.at, owner=entry.by.owner, token=entry.by.token, **plain)


class AuditPage(BaseModel):
    """A page of the audit log, latest first."""

    entries: list[AuditOut]
    total: int
    offset: int
    limit: int


Text = Annotated[str | None, Query(min_length=1, max_length=200), AfterValidator(storable_text)]


def router(store: Store) -> APIRouter:
    """/v1/audit."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/v1/audit", responses={**LINKED, **answers(422)})
    def audit_log(caller: WithCaller, page: WithPage, owner: Text = None, under: Text = None) -> AuditPage:
        """Who has changed what, latest first: one `owner` (non-admins see only themselves), `under` such as `studies/3`."""
        whose = caller.owner or owner
        found: tuple[list[AuditRecord], int] = ([], 0)
        if owner in (None, whose):
            records, total = store.audit.page(owner=whose, under=under, offset=page.offset, limit=page.limit)
            found = [*records], total
        page.link(found[1])
        entries = [AuditOut.of(record) for record in found[0]]
        return AuditPage(entries=entries, total=found[1], offset=page.offset, limit=page.limit)

    return routes

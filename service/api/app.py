"""The ASGI application: `create_app(store, settings)`. Importing this module has no side effects."""

from __future__ import annotations

import logging
import time
import uuid
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import (
    audit,
    background,
    changing,
    compare,
    confirming,
    dashboard,
    datasets,
    device,
    events,
    export,
    modules,
    operations,
    pages,
    portable,
    problems,
    programs,
    reference,
    replays,
    reports,
    retention,
    sharing,
    signing_in,
    studies,
    tokens,
    usage,
    webhooks,
)
from service.api.access import Access
from service.api.bodies import BodyLimit
from service.api.foreign import ForeignRequests
from service.api.oidc import Issuer, check_settings
from service.api.openapi import describe
from service.api.queries import no_unknown_parameters
from service.api.streams import Sending, Streams
from service.api.tracing import Traces
from service.leftovers import Leftovers
from service.objects import open_objects
from service.settings import Settings
from service.store import Store
from service.trained import TrainedModels

log = logging.getLogger("regsearch.access")

ABOUT = """Finds the regularization that makes a neural network generalize.

Submit a study with `POST /v1/studies`, poll it with `GET /v1/studies/{id}`, read the answer from
`GET /v1/studies/{id}/result`. All errors are RFC 9457 problem documents."""


def create_app(store: Store, settings: Settings) -> FastAPI:
    """Build the API and, unless it is switched off, the dashboard on the same database; or the dashboard only."""
    leftovers = Leftovers(open_objects(settings), store)
    models = TrainedModels(store, leftovers.objects)
    document = None if settings.dashboard == "only" else "/openapi.json"
    app = FastAPI(
        title="regsearch",
        version=version("regsearch"),
        description=ABOUT,
        openapi_url=document,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(no_unknown_parameters)],
        responses={status: problems.answers(status)[status] for status in (422, 429)},
        lifespan=None if document is None else background.lifespan(store, settings, leftovers, models),
    )
    app.state.streams = Streams()
    check_settings(settings)
    problems.install(app)
    _guard(app, store, settings)
    app.include_router(operations.health(store, settings.home))
    if settings.dashboard != "only":
        app.include_router(reference.router("/openapi.json", app.title))
        app.include_router(studies.router(store, settings))
        app.include_router(changing.router(store, settings, leftovers))
        app.include_router(pages.router(store))
        app.include_router(compare.router(store))
        app.include_router(events.router(store, app.state.streams))
        app.include_router(export.router(store))
        app.include_router(portable.router(store, settings))
        app.include_router(programs.router(store))
        app.include_router(reports.router(store, models))
        app.include_router(replays.router(store, settings))
        app.include_router(datasets.router(store, settings))
        app.include_router(modules.router(store))
        app.include_router(operations.router(store))
        app.include_router(audit.router(store))
        app.include_router(usage.router(store, settings))
        if settings.auth == "tokens":
            app.include_router(tokens.router(store))
        app.include_router(webhooks.router(store))
        app.include_router(sharing.router(store))
        app.include_router(retention.router(store, leftovers))
    if settings.dashboard != "off":
        dashboard.mount(app, store, writable=settings.dashboard == "writable")
    describe(app, tokens=settings.auth == "tokens")
    return app


def _guard(app: FastAPI, store: Store, settings: Settings) -> None:
    """Add what every request passes, from the last to the first, and the pages by which people sign in."""
    largest = {datasets.PATH: settings.max_upload_mb, portable.RESTORE: settings.max_archive_mb}
    app.add_middleware(BodyLimit, uploads={path: int(most * 2**20) for path, most in largest.items()})
    if settings.quota_requests is not None:
        app.add_middleware(usage.RateLimit, per_minute=settings.quota_requests)
    if settings.auth == "tokens":
        issuer = Issuer(settings) if settings.oidc_issuer else None
        app.add_middleware(Access, store=store, issuer=issuer, audience=settings.oidc_audience)
        app.include_router(signing_in.pages(store, issuer, settings))
        if issuer is not None:
            app.include_router(device.router(store, settings))
            app.include_router(confirming.pages(store, settings))
    app.add_middleware(audit.AuditLog, store=store)
    app.add_middleware(ForeignRequests, settings=settings)
    app.add_middleware(Sending, streams=app.state.streams)
    app.add_middleware(Requests)
    if settings.traces_url:
        app.add_middleware(Traces)


class Requests:
    """ASGI middleware that gives every request an id and logs one line when it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Assign an id to an HTTP request, time it and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex[:12]
        scope.setdefault("state", {})["request_id"] = request_id
        start = time.perf_counter()
        fields: dict[str, Any] = {"request_id": request_id, "method": scope["method"], "path": scope["path"], "status": 500}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields["status"] = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            caller = scope["state"].get("caller")
            if caller is not None:
                fields |= {"owner": caller.token.owner, "token": caller.token.id}
            log.info("request", extra={**fields, "ms": round(1000 * (time.perf_counter() - start), 1)})

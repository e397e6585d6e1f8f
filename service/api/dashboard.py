"""optuna-dashboard at the service's own address and on its database, read-only unless the operator makes it writable.

The dashboard supports neither a base path nor authentication: it serves the paths that match none of our routes, and a
guard passes only read requests on to it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import optuna
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem
from service.store import Store

_PATHS = ("/dashboard", "/static/", "/api/", "/artifacts/", "/csv/", "/favicon.ico")
_TOO_LARGE = re.compile(r"/\d{10,}(?:/|$)")
"""A number that the database's integers can't hold; the dashboard hands it on to the database."""
_READ_METHODS = frozenset({"GET", "HEAD"})


def mount(app: FastAPI, store: Store, *, writable: bool) -> None:
    """Serve the dashboard at its own paths, which are matched after all of our routes."""
    with _without_scikit_learn(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the dashboard's own imports warn of deprecations that are not ours
        import optuna_dashboard
        from a2wsgi import WSGIMiddleware

        # Optuna wraps the storage in a cache, which makes the dashboard's polls incremental.
        storage = optuna.storages.get_storage(store.optuna_storage())
        pages: Any = WSGIMiddleware(optuna_dashboard.wsgi(storage))
    app.router.default = Guard(pages, app.router.default, writable=writable)


@contextmanager
def _without_scikit_learn() -> Iterator[None]:
    """Import as if scikit-learn were not installed.

    For Optuna it is optional, but imported where it is installed, which costs this process 150 MB and one second. The
    dashboard computes importances by PED-ANOVA, which does not need it.
    """
    before = sys.modules.get("sklearn")
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # None makes the import fail
    try:
        yield
    finally:
        del sys.modules["sklearn"]
        if before is not None:
            sys.modules["sklearn"] = before


class Guard:
    """ASGI application: the dashboard for its paths, read-only unless ``writable``; ``otherwise`` for all others."""

    def __init__(self, pages: ASGIApp, otherwise: ASGIApp, *, writable: bool) -> None:
        self._pages = pages
        self._otherwise = otherwise
        self._writable = writable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, pass on, or refuse with 403."""
        if scope["type"] != "http" or not (scope["path"] == "/" or scope["path"].startswith(_PATHS)):
            await self._otherwise(scope, receive, send)
        elif _TOO_LARGE.search(scope["path"]):
            answer = problem(Request(scope), HTTPStatus.NOT_FOUND, "no study or trial has a number of ten digits or more")
            await answer(scope, receive, send)
        elif self._writable or scope["method"] in _READ_METHODS:
            await self._pages(scope, receive, send)
        else:
            detail = "the dashboard is read-only; change studies through /v1"
            answer = problem(Request(scope), HTTPStatus.FORBIDDEN, detail)
            await answer(scope, receive, send)

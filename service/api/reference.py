"""/docs, the reference of the API to read and to try: Swagger UI from this machine, without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

PATH = "/docs"
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
"""What the page loads, from the package `fastapi-offline`."""
REFERENCE = (PATH, *(f"{PATH}/{name}" for name in ASSETS))
"""All paths."""


def router(openapi_url: str, title: str) -> APIRouter:
    """The page and its two files, which tell nothing of anybody's."""
    routes = APIRouter(include_in_schema=False)
    body = _page(openapi_url, title)
    (script,) = re.findall(r"<script>(.*?)</script>", body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @routes.get(PATH)
    def reference() -> HTMLResponse:
        """The page."""
        return HTMLResponse(body, headers={"content-security-policy": policy})

    for name, kind in ASSETS.items():
        routes.add_api_route(f"{PATH}/{name}", _asset(name, kind), methods=["GET"])
    return routes


def _page(openapi_url: str, title: str) -> str:
    html = get_swagger_ui_html(
        openapi_url=openapi_url,
        title=title,
        swagger_js_url=f"{PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{PATH}/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    return bytes(html.body).decode()


def _asset(name: str, kind: str) -> Callable[[], Response]:
    def asset() -> Response:
        content = files("fastapi_offline").joinpath("static", name).read_bytes()
        return Response(content, media_type=kind, headers={"cache-control": "max-age=86400"})

    return asset

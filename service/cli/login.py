"""Signing in this machine: a code is confirmed in a browser on any machine, where the service is set up for that."""

from __future__ import annotations

import platform
import time
from contextlib import closing
from typing import Any

from rich.console import Console

from service.client.connection import HttpClient, Refused, Unreachable, is_outage
from service.client.credentials import keep_token
from service.errors import RegsearchError

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER_SECONDS = 5.0
"""RFC 8628, 3.5."""


class NoDeviceFlow(RegsearchError):
    """The service signs nobody in by a browser."""


def sign_in(console: Console, url: str, scope: str | None) -> None:
    """Show a code, wait until somebody has confirmed it in a browser, and keep the token.

    Raises:
        NoDeviceFlow: The service does not know of that.
        Refused, Unreachable: It does not give a token.
    """
    with closing(HttpClient(url)) as client:
        fields = {
            "client_id": "regsearch",
            "device": platform.node()[:100] or "unknown",
            **({"scope": scope} if scope else {}),
        }
        try:
            begun = client.submit_form("/v1/login/device", fields)
        except Refused as refused:
            if refused.status in (401, 404, 405):
                raise NoDeviceFlow(str(refused)) from None
            raise
        console.print(f"Open {begun['verification_uri']}", highlight=False, soft_wrap=True)
        console.print(f"in a browser on any machine, and confirm the code {begun['user_code']}", highlight=False)
        got = _token(client, begun)
    path = keep_token(url, got["access_token"])
    hours = round(got["expires_in"] / 3600, 1)
    kept = f"Signed in at {url} as {got['owner']}, scope {got['scope']}, for {hours:g} h; kept in {path}"
    console.print(kept, highlight=False)


def _token(client: HttpClient, begun: dict[str, Any]) -> Any:
    """Poll until there is a token, through outages, for as long as the code is good."""
    pause, give_up = float(begun["interval"]), time.monotonic() + begun["expires_in"]
    while True:
        time.sleep(pause)
        try:
            return client.submit_form("/v1/login/token", {"grant_type": _GRANT, "device_code": begun["device_code"]})
        except (Refused, Unreachable) as error:
            word = error.error if isinstance(error, Refused) else ""
            pause += _SLOWER_SECONDS if word == "slow_down" else 0.0
            may_come = word in ("authorization_pending", "slow_down") or is_outage(error)
            if not may_come or time.monotonic() > give_up:
                raise

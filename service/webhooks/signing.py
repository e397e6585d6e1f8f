"""Signatures by which a receiver knows that a request is ours, and when it was sent.

Reference: Standard Webhooks, https://www.standardwebhooks.com, symmetric signatures (`v1`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
_BYTES = 32


def new_secret() -> str:
    """A secret, as its receiver keeps it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def headers(message: str, at: int, body: bytes, keys: Sequence[str]) -> Mapping[str, str]:
    """The headers of a request.

    Args:
        message: Its id, the same however often it is sent.
        at: When it is sent, in seconds since 1970.
        body: What is sent.
        keys: Secrets, of which its receiver has one; a signature by each is sent.
    """
    signed = f"{message}.{at}.".encode() + body
    found = [
        base64.b64encode(hmac.new(base64.b64decode(key.removeprefix(PREFIX)), signed, hashlib.sha256).digest()).decode()
        for key in keys
    ]
    return {
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{each}" for each in found),
        "content-type": "application/json",
    }

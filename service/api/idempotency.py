"""`Idempotency-Key`: a request that is sent again with the same key does nothing again, and has the same answer.

The key is written with the change itself, in one transaction, so that not even a crash in between does it twice. Reference:
the IETF draft "The Idempotency-Key HTTP Header Field". Uploads need none, as a data set's id follows from its content, nor
do the requests of programs, which are repeatable by themselves.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request

from service.api.access import WithCaller
from service.store.engine import Once


async def once_of(
    request: Request,
    caller: WithCaller,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1, max_length=255, description="Of this request: sent again within a day, it changes nothing again."
        ),
    ] = None,
) -> Once | None:
    """What makes a write that of this request; None for a request without a key."""
    if idempotency_key is None:
        return None
    sender = str(caller.token.owner if caller.token else "")
    given = f"{request.method} {request.url.path}\n".encode() + await request.body()
    return Once(_digest(f"{sender}\n{idempotency_key}".encode())[:32], _digest(given))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


WithKey = Annotated[Once | None, Depends(once_of)]

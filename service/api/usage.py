"""Usage and quotas of owners over HTTP, and the limit on requests in a minute."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from http import HTTPStatus

from fastapi import APIRouter, Request
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.access import OPEN, Caller, WithCaller
from service.api.problems import problem
from service.settings import Settings
from service.store import Store
from service.store.usage import NO_QUOTAS, OwnerUsage, Quotas

_MOST_SENDERS = 10_000
"""Senders that are remembered; the others have not sent anything for the longest time."""


def quotas_of(settings: Settings, caller: Caller) -> Quotas:
    """The quotas on what a caller asks for; admins are not held up."""
    if caller.owner is None and caller.token is not None:
        return NO_QUOTAS
    size = None if settings.quota_bytes is None else int(settings.quota_bytes)
    return Quotas(settings.quota_running, settings.quota_trials, size)


class RateLimit:
    """ASGI middleware: 429 for more requests in a minute than an owner may send; without tokens, than an address may.

    A bucket of ``per_minute`` tokens for each sender, filled evenly: a burst may use a minute's requests at once. Each
    process counts its own. Paths that need no token are not counted.
    """

    def __init__(self, app: ASGIApp, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._per_minute = per_minute
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By sender: requests left, and when that was."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        wait = self.take(_sender(scope))
        if wait == 0:
            await self._app(scope, receive, send)
            return
        detail = f"more than {self._per_minute} requests in a minute; send it again in {wait} s"
        answer = problem(Request(scope), HTTPStatus.TOO_MANY_REQUESTS, detail)
        answer.headers["retry-after"] = str(wait)
        await answer(scope, receive, send)

    def take(self, sender: str) -> int:
        """Take a request out of a sender's bucket; if it is empty, the seconds until there is one."""
        now, rate = self._clock(), self._per_minute / 60.0
        left, at = self._left.pop(sender, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - at) * rate)
        allowed = left >= 1.0
        self._left[sender] = (left - 1.0 if allowed else left, now)
        if len(self._left) > _MOST_SENDERS:
            self._left.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1.0 - left) / rate))


def _sender(scope: Scope) -> str:
    caller: Caller | None = scope.get("state", {}).get("caller")
    if caller is not None and caller.token is not None:
        return f"owner {caller.token.owner}"
    client = scope.get("client")
    return f"address {client[0]}" if client else ""


class Limits(BaseModel):
    """The most that an owner may have; null for no limit."""

    running: int | None
    trials: int | None
    bytes: int | None
    requests: int | None = Field(description="In a minute.")


class UsageOut(BaseModel):
    """What an owner uses."""

    owner: str
    studies: int
    running: int = Field(description="Studies that have not ended.")
    trials_left: int = Field(description="Trials that these have left.")
    trials: int = Field(description="Finished trials of all studies.")
    epochs: int = Field(description="Epochs trained in them.")
    dataset_bytes: int
    model_bytes: int
    quotas: Limits


def router(store: Store, settings: Settings) -> APIRouter:
    """/v1/usage."""
    routes = APIRouter(tags=["operations"])
    kept = quotas_of(settings, Caller())
    limits = Limits(running=kept.running, trials=kept.trials, bytes=kept.size, requests=settings.quota_requests)

    @routes.get("/v1/usage")
    def usage(caller: WithCaller) -> list[UsageOut]:
        """What owners use, and the quotas on it: everybody's for admins, else one's own."""
        return [UsageOut(**vars(each), quotas=limits) for each in usages(store, caller)]

    return routes


def usages(store: Store, caller: Caller) -> list[OwnerUsage]:
    """The usage that a caller may see."""
    return [*store.usage.all()] if caller.owner is None else [store.usage.of(caller.owner)]


GAUGES = {
    "running": "Studies that have not ended, by owner.",
    "trials_left": "Trials that these have left, by owner.",
    "dataset_bytes": "Bytes of data sets, by owner.",
    "model_bytes": "Bytes of trained models, by owner.",
}


class UsageCollector(Collector):
    """Reads the usage that a caller may see from the database."""

    def __init__(self, store: Store, caller: Caller) -> None:
        self._store = store
        self._caller = caller

    def describe(self) -> list[Metric]:
        """Empty, so that registering the collector reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """A gauge for each number."""
        found = usages(self._store, self._caller)
        for name, about in GAUGES.items():
            family = GaugeMetricFamily(f"regsearch_owner_{name}", about, labels=["owner"])
            for each in found:
                family.add_metric([each.owner], getattr(each, name))
            yield family

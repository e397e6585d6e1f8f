"""Usage and quotas of owners over HTTP, and the limit on requests in a minute."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from fastapi import APIRouter, Request
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.access import OPEN, Caller, WithCaller
from service.api.problems import problem
from service.api.rates import Buckets
from service.settings import Settings
from service.store import Store
from service.store.usage import NO_QUOTAS, OwnerUsage, Quotas


def quotas_of(settings: Settings, caller: Caller) -> Quotas:
    """The quotas on what a caller asks for; admins are not held up."""
    if caller.owner is None and caller.token is not None:
        return NO_QUOTAS
    size = None if settings.quota_bytes is None else int(settings.quota_bytes)
    return Quotas(settings.quota_running, settings.quota_trials, size)


class RateLimit:
    """ASGI middleware: 429 for more requests in a minute than an owner may send; without tokens, than an address may.

    Each process counts its own. Paths that need no token are not counted.
    """

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        self._app = app
        self._buckets = Buckets(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        wait = self._buckets.take(_sender(scope))
        if wait == 0:
            await self._app(scope, receive, send)
            return
        detail = f"more than {self._buckets.per_minute} requests in a minute; send it again in {wait} s"
        answer = problem(Request(scope), HTTPStatus.TOO_MANY_REQUESTS, detail)
        answer.headers["retry-after"] = str(wait)
        await answer(scope, receive, send)


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

"""Routes for operators: liveness, readiness, workers, Prometheus metrics."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from service.api.access import WithCaller
from service.api.models import WorkerOut
from service.api.problems import answers
from service.api.usage import UsageCollector
from service.errors import DatabaseUnavailable, NotReady
from service.spec.model import MOST_DEVICES
from service.store import Store, StudyState
from service.store.demand import TRIALS_PER_WORKER

READY_SECONDS = 3.0
METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus text format", "content": {"text/plain": {"example": "regsearch_workers 1.0"}}},
    **answers(),
}


class QueueOut(BaseModel):
    """What the queue has for workers."""

    studies: int = Field(description="Studies that such workers have work for.")
    trials: int = Field(description="Trials that these have left, those in training included.")
    workers: int = Field(description="Workers that they could use at once.")
    larger: int = Field(description="Further studies, of networks on more devices than such workers have.")
    devices: int = Field(description="The most devices that one of these wants; 0 if there are none.")


def health(store: Store, home: Path) -> APIRouter:
    """/healthz and /readyz."""
    routes = APIRouter(tags=["operations"])
    one_ping = anyio.CapacityLimiter(1)

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process is alive. Needs no worker thread: it answers even while all of them wait for the database."""
        return {"status": "alive"}

    @routes.get("/readyz", responses=answers())
    async def readyz() -> dict[str, str]:
        """Whether the database answers in time and has the right schema, and the disk has room; 503 otherwise."""
        with anyio.move_on_after(READY_SECONDS):
            await to_thread.run_sync(check_ready, store, home, abandon_on_cancel=True, limiter=one_ping)
            return {"status": "ready"}
        raise DatabaseUnavailable(f"the database did not answer within {READY_SECONDS:.0f} s")

    return routes


def router(store: Store) -> APIRouter:
    """/metrics, /v1/workers and /v1/queue."""
    routes = APIRouter(tags=["operations"])
    registry = CollectorRegistry()
    registry.register(StoreCollector(store))

    @routes.get("/metrics", response_class=Response, responses=METRICS)
    def metrics(caller: WithCaller) -> Response:
        """Gauges for Prometheus. Those by owner are of the caller's own, and of everybody for admins."""
        owners = CollectorRegistry()
        owners.register(UsageCollector(store, caller))
        return Response(generate_latest(registry) + generate_latest(owners), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/v1/workers")
    def workers() -> list[WorkerOut]:
        """Worker processes, latest first, with the shares of their time."""
        return [WorkerOut.of(record) for record in store.workers.list()]

    @routes.get("/v1/queue")
    def queue(
        trials_per_worker: Annotated[int, Query(ge=1, le=1_000_000)] = TRIALS_PER_WORKER,
        devices_per_trial: Annotated[int, Query(ge=1, le=MOST_DEVICES, description="Devices that each worker has.")] = 1,
    ) -> QueueOut:
        """How many workers the queue has work for, of everybody's studies: what an autoscaler asks."""
        return QueueOut(**vars(store.demand.read(trials_per_worker, devices_per_trial)))

    return routes


def check_ready(store: Store, home: Path) -> None:
    """Check that the database answers, and that a file can be written in ``home``.

    Raises:
        NotReady: It can't be written.
        DatabaseUnavailable: See `Store.ping`.
    """
    try:
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"regsearch" * 1000)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise NotReady(f"{home} can't be written: {error.strerror}") from None
    store.ping()


WORKER_GAUGES = {
    "lanes": "Lanes in training.",
    "occupancy": "Live lane-epochs per lane-epoch computed.",
    "steady_occupancy": "The same between the first round with all lanes in demand and the last with trials to come.",
    "epochs_per_second": "Trial-epochs per second since the session began.",
    "device_memory_bytes": "Memory of the device in use by a worker that searches; of its process, on a CPU.",
}


class StoreCollector(Collector):
    """Reads the gauges from the database at every scrape; several API processes count nothing twice."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        """Empty, so that registering the collector reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Studies and trials by state, and the statistics of each living worker."""
        studies = GaugeMetricFamily("regsearch_studies", "Studies by state.", labels=["state"])
        for state in StudyState:
            studies.add_metric([state.value], self._store.studies.list(state=state, limit=1)[1])
        yield studies
        trials = GaugeMetricFamily("regsearch_trials", "Trials by state.", labels=["state"])
        for name, number in self._store.history.trials_of_all().items():
            trials.add_metric([name], number)
        yield trials
        yield GaugeMetricFamily("regsearch_queue_depth", "Unfinished trials of open studies.", value=self._depth())
        waiting, held = self._store.studies.of_workers()
        yield GaugeMetricFamily("regsearch_studies_waiting", "Open studies that no worker has a lease on.", value=waiting)
        yield GaugeMetricFamily("regsearch_leases", "Leases that workers hold.", value=held)
        leases = CounterMetricFamily("regsearch_leases_lost", "Leases that expired; their trials were requeued.")
        leases.add_metric([], self._store.leases.lost())
        yield leases
        start = time.perf_counter()
        self._store.ping()
        latency = time.perf_counter() - start
        yield GaugeMetricFamily("regsearch_database_latency_seconds", "Latency of a read.", value=latency)
        alive = [worker for worker in self._store.workers.list() if worker.state == "alive"]
        yield GaugeMetricFamily("regsearch_workers", "Living workers.", value=len(alive))
        for name, about in WORKER_GAUGES.items():
            family = GaugeMetricFamily(f"regsearch_worker_{name}", about, labels=["worker", "device"])
            for worker in alive:
                family.add_metric([worker.name, worker.device], float(worker.stats.get(name, 0)))
            yield family
        training = GaugeMetricFamily(
            "regsearch_worker_training", "Share of time spent in training.", labels=["worker", "device"]
        )
        for worker in alive:
            training.add_metric([worker.name, worker.device], float(worker.stats.get("shares", {}).get("training", 0)))
        yield training

    def _depth(self) -> int:
        """Unfinished trials in the budgets of open studies."""
        return sum(self._store.studies.open_trials().values())

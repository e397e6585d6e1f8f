"""A worker process: it leases a study, searches or finalizes it, releases it, makes its ONNX model, and takes the next one.

On SIGTERM or SIGINT it stops after the current epoch and requeues its trials. An error in a study's data or model fails
that study with its reason; while the database is unavailable, the worker waits.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from typing import assert_never

import psutil
import torch

from service.errors import DatabaseUnavailable, InvalidInput, LeaseLost, NotReady, StorageFull, TrialError
from service.logs import log_fields
from service.objects import open_objects
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store
from service.store.bell import Bell
from service.store.records import SEARCHED, Lease
from service.tracing import joined, span, tracing
from service.trained import TrainedModels
from workers.answer.finishing import Finisher
from workers.liveness import Pulse, Renewal, Stop
from workers.modules import published
from workers.onnx_models import OnnxModels
from workers.searching.checkpoints import Checkpoints
from workers.searching.search import Searcher
from workers.stack.link import Link
from workers.stack.memory import is_out_of_memory, spoils_thread
from workers.stack.workshop import Workshop
from workers.study_data import PATIENCE_SECONDS, StudyData

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5


def devices() -> list[str]:
    """The devices that get a worker each: every CUDA device, or else the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def device_memory(device: str, share: float = 1.0) -> int | None:
    """Bytes of a CUDA device's memory that this process may take, limited to a ``share`` in (0, 1] of it; None for the CPU,
    which shares the machine's.
    """
    if torch.device(device).type != "cuda":
        return None
    if share < 1.0:
        torch.cuda.set_per_process_memory_fraction(share, device)
    return int(torch.cuda.mem_get_info(device)[1] * share)


class Worker:
    """One process on one device, whose studies may take ``memory`` bytes; it leaves after ``idle_seconds`` without work.

    A ``link`` leads to further devices, for studies that want them.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        device: str,
        stop: Stop,
        memory: int | None = None,
        idle_seconds: float = math.inf,
        link: Link | None = None,
    ) -> None:
        self.spoiled = False
        """Whether this process can't train everything any more, so that another one should take its place."""
        self._store = store
        self._idle_seconds = idle_seconds
        self._settings = settings
        self._stop = stop
        self._device = device
        self._checkpoints = Checkpoints(open_objects(settings))
        host, pid = platform.node(), os.getpid()
        count = 1 if link is None else link.processes
        self.id = store.workers.register(
            name=f"{host}:{pid}", host=host, pid=pid, device=device, memory=memory, devices=count
        )
        self._pulse = Pulse(store, self.id)
        self._bell = Bell(store.database)
        store.modules.publish(self.id, [each.model_dump(mode="json") for each in published(settings.modules)])
        self._data = StudyData(store, settings, torch.device(device), link)
        self._workshop = Workshop(settings.cache / "programs")
        self._searcher = Searcher(store, settings, self._pulse, stop, self._checkpoints, self._workshop)
        models = TrainedModels(store, open_objects(settings, patience_seconds=PATIENCE_SECONDS))
        self._finisher = Finisher(store, models, settings, self._pulse, stop, self._workshop)
        self._onnx = OnnxModels(store, models, self._pulse, settings.modules)

    def run(self) -> None:
        """Work until a stop is requested, there has been no work for long enough, or this process is `spoiled`."""
        self._expire_dead_workers()
        self._checkpoints.sweep(self._store.history.open_among)
        busy = time.monotonic()
        while not (self._stop() or self.spoiled) and time.monotonic() - busy <= self._idle_seconds:
            try:
                lease = self.turn()
                answered = lease is None or lease.phase == "finalize"
                made = answered and not self._stop() and self._onnx.make_one()
                if lease is not None or made:
                    busy = time.monotonic()
                else:
                    self._pulse.idle()
                    self._bell.wait(self._stop.asked, max(0.0, busy + self._idle_seconds - time.monotonic()))
            except DatabaseUnavailable as error:
                log.warning("database unavailable, waiting: %s", error)
                self._stop.asked.wait(RETRY_SECONDS)
        self._bell.hush()
        self._workshop.close()
        self._store.workers.leave(self.id)

    def turn(self) -> Lease | None:
        """Take one lease, if there is any work, and work until it ends; returns the lease."""
        began = time.time_ns()
        lease = self._store.leases.claim(self.id, self._settings.lease_seconds)
        if lease is None:
            return None
        self._bell.hush()
        carrier = self._store.provenance.get(lease.study_id).carrier if tracing() else {}
        with joined(carrier), log_fields(worker=self.id, study=lease.study_id):
            with span("claim", began_ns=began, study=lease.study_id, worker=self.id):
                pass
            with span(lease.phase, study=lease.study_id, worker=self.id, device=self._device, lease=lease.token):
                self._work(lease)
        return lease

    def _expire_dead_workers(self) -> None:
        """Free the trials of workers that died on this host, without waiting for their leases to expire."""
        for worker in self._store.workers.list():
            here = worker.host == platform.node() and worker.id != self.id
            if here and worker.state != "left" and not psutil.pid_exists(worker.pid):
                self._store.leases.expire(worker.id)
                self._store.workers.leave(worker.id)

    def _work(self, lease: Lease) -> None:
        study = self._store.studies.get(lease.study_id)
        log.info("lease %d: study %d, %s", lease.token, lease.study_id, lease.phase)
        try:
            spec = StudySpec.model_validate(study.spec)
            with Renewal(self._store, lease, self._settings.lease_seconds) as renewal:
                with span("load"), self._pulse.during(lambda: {"state": "loading", "study": study.id}):
                    data = self._data.of(study, spec)
                match lease.phase:
                    case "search":
                        self._searcher.run(lease, renewal, spec, data)
                    case "finalize":
                        self._finisher.run(lease, renewal, study, spec, data)
                    case _:
                        assert_never(lease.phase)
        except LeaseLost as error:
            moved_on = lease.phase == "search" and self._store.studies.get(lease.study_id).state not in SEARCHED
            log.log(logging.INFO if moved_on else logging.WARNING, "%s; its trials are dropped", error)
        except (InvalidInput, TrialError) as error:
            self._fail(lease, str(error))
        except DatabaseUnavailable:
            raise
        except (NotReady, StorageFull) as error:
            self._give_up(lease, str(error))
        except Exception as error:  # a bug must fail one study, not the worker, and be reported
            if is_out_of_memory(error):
                # Perhaps of others: it is tried again, as after a worker that was killed for it, but not for ever.
                self._give_up(lease, f"out of memory: {error}")
                self.spoiled = spoils_thread(error)
            else:
                log.exception("study %d failed", lease.study_id)
                self._fail(lease, f"internal error: {type(error).__name__}: {error}")

    def _give_up(self, lease: Lease, because: str) -> None:
        """Leave a study to be tried again, but not for ever."""
        log.warning("study %d: %s", lease.study_id, because)
        self._store.leases.give_up(lease, because)
        self._stop.asked.wait(RETRY_SECONDS)

    def _fail(self, lease: Lease, reason: str) -> None:
        try:
            self._store.studies.fail(lease, reason)
        except LeaseLost as error:
            log.warning("%s; %s is not recorded", error, reason)

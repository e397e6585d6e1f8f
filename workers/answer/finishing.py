"""Finalizing a study under one lease: its answer, how it was executed, its trained model, its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from typing import Any

from service.errors import LeaseLost, StorageFull
from service.result import Result
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store
from service.store.records import Lease, StoredObject, StudyRecord
from service.tracing import span
from service.trained import TrainedModels
from workers.answer.affordable import affordable
from workers.answer.delivery import Keeper
from workers.answer.execution import execution_of
from workers.answer.finalizer import Answer, Finalizer
from workers.answer.front import ranked
from workers.answer.refit import Refitted, Refitting, kind_of
from workers.liveness import Pulse, Renewal, Stop
from workers.planning.plan import Plan
from workers.stack.layout import Layout, Threads
from workers.stack.workshop import Workshop
from workers.study_data import PATIENCE_SECONDS, Prepared
from workers.timing import Timer

_PAUSE_SECONDS = 0.5


class Finisher:
    """Finalizes studies for one worker, one lease at a time."""

    def __init__(
        self, store: Store, models: TrainedModels, settings: Settings, pulse: Pulse, stop: Stop, workshop: Workshop
    ) -> None:
        self._store = store
        self._models = models
        self._settings = settings
        self._pulse = pulse
        self._stop = stop
        self._workshop = workshop

    def run(self, lease: Lease, renewal: Renewal, study: StudyRecord, spec: StudySpec, data: Prepared) -> None:
        """Finalize a searched study; the lease ends with it.

        Raises:
            LeaseLost: The lease was taken away, or the worker is stopping: another worker starts again.
            NotReady, StorageFull: The archive of the network can't be written.
            TrialError: No finalist could be trained.
        """
        timer = Timer()
        known = self._store.provenance.get(study.id).made_of or {}
        spec = affordable(spec, self._store.studies.get(study.id))
        answer, again = self._answer(lease, renewal, spec, data, known)
        shares = self._store.utilization.get(study.id) or {}
        execution = execution_of(self._store, study.id, timer.elapsed, shares)
        kept = Keeper(study, spec, data).keep(answer, again).within(int(self._settings.max_model_mb * 2**20))
        result = Result.of(answer.findings, execution, kept.model, kept.pictures)
        report = f"[Report]({self._settings.public_url}/v1/studies/{study.id}/report)"
        with span("finish"):
            archive = None if kept.archive is None else self._written(kept.archive)
            try:
                self._store.studies.finish(lease, result.to_json(), archive, note=f"**{result.verdict}**\n\n{report}")
            finally:
                self._models.discard([archive])  # of a worker that has lost its lease

    def _written(self, archive: bytes) -> StoredObject:
        """The archive as an object; a full disk is waited for, as the database's writes do."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._models.keep(BytesIO(archive), "zip")
            except StorageFull:
                if time.monotonic() > give_up or self._stop.asked.wait(_PAUSE_SECONDS):
                    raise

    def _answer(
        self, lease: Lease, renewal: Renewal, spec: StudySpec, data: Prepared, known: Mapping[str, Any]
    ) -> tuple[Answer, Refitted | None]:
        """The answer, trained by the plan of the search, and what is trained again after it.

        Meanwhile heartbeats are sent.
        """
        study_id = lease.study_id
        page, _ = self._store.history.page(study_id, state="complete", limit=1_000_000)
        who = f"worker {self._pulse.worker_id}"

        def alive() -> None:
            if self._stop():
                raise LeaseLost("the worker is stopping")
            renewal.check()

        def open_test(purpose: str = "final score") -> None:
            self._store.studies.open_test(study_id, who, purpose)

        def again(answer: Answer, eager: Layout) -> Refitted | None:
            deliver = spec.deliver
            if deliver is None:
                return None
            if deliver.rows == "all" and spec.searches == 1:  # with nested validation it has trained on all rows anyway
                open_test("training of the delivered networks, after the final score")
            refitting = Refitting(spec, data, answer.winner, deliver, alive, eager)
            return refitting.train(kind_of(deliver, answer.average))

        plan = Plan.of(known["plan"]) if "plan" in known else Plan(1, None)
        plan.take_threads()
        threads = Threads(plan.threads or 1, self._workshop.is_building)
        layout = partial(plan.final_layout, self._workshop, threads, data.device.device)
        with self._pulse.during(lambda: {"state": "finalizing", "study": study_id}):
            try:
                with span("evaluate"):
                    answer = Finalizer(spec, data, alive, layout).run(ranked(spec, page), open_test)
                with span("deliver"):
                    return answer, again(answer, Layout(plan.block_lanes, threads=threads))
            except LeaseLost:
                self._store.leases.release(lease)
                raise
            finally:
                threads.close()

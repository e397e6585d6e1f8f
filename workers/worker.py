"""A worker process: lease a study, search or finalize it, give it back, take the next.

It stops on SIGTERM or SIGINT after the running epoch and puts its trials back. What a study's own data or model gets
wrong fails that study with its reason; what the database or the machine gets wrong is waited out.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil
import torch

from service.datasets import BUILTIN, resolve_path, stored_path
from service.datasets.uploads import file_format
from service.errors import DatabaseUnavailable, InvalidInput, LeaseLost, NotFound, TrialError
from service.result import Result
from service.settings import Settings
from service.spec import RANKING_METRICS, StudySpec
from service.spec.model import LAYOUTS
from service.store import Store
from service.store.records import SEARCHED, Lease, StudyRecord
from workers.answer import Finalizer, Prepared
from workers.answer.delivery import TARGET, Keeper
from workers.answer.execution import execution_of
from workers.answer.front import ranked
from workers.archive.start import Start, read_start
from workers.data import DataSource, Fold, PrepareOptions, RawTable, load_table, make_split, prepare_alike, prepare_all
from workers.liveness import BEAT_SECONDS, Heart, Renewal, Stop
from workers.planning.plan import Plan
from workers.searching.checkpoints import Checkpoints
from workers.searching.provenance import data_hash, made_of
from workers.searching.session import Environment, Session
from workers.stack.device_data import DeviceData
from workers.timing import Timer

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5


def devices() -> list[str]:
    """The devices that each get a worker: every CUDA device, or else the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


class Worker:
    """One process on one device."""

    def __init__(self, store: Store, settings: Settings, device: str, stop: Stop) -> None:
        self._store = store
        self._settings = settings
        self._device = torch.device(device)
        self._stop = stop
        self._prepared: tuple[str, Prepared] | None = None
        self._checkpoints = Checkpoints(settings.home / "checkpoints")
        self._beat_at = 0.0
        self._last_shares: dict[str, float] = {}
        self.id = store.workers.register(
            name=f"{platform.node()}:{os.getpid()}", host=platform.node(), pid=os.getpid(), device=device
        )

    def run(self) -> None:
        """Work until told to stop."""
        self._bury_the_dead()
        self._checkpoints.sweep(self._store.history.open_among)
        while not self._stop():
            try:
                if not self.turn():
                    self._beat({"state": "idle"})
                    self._stop.asked.wait(POLL_SECONDS)
            except DatabaseUnavailable as error:
                log.warning("database unavailable, waiting: %s", error)
                self._stop.asked.wait(POLL_SECONDS)
        self._store.workers.leave(self.id)

    def turn(self) -> bool:
        """Take one lease, if there is any work, and work until it ends; returns whether there was."""
        lease = self._store.leases.claim(self.id, self._settings.lease_seconds)
        if lease is not None:
            self._work(lease)
        return lease is not None

    def _bury_the_dead(self) -> None:
        """Free the trials of workers that died on this host, without waiting for their leases to run out."""
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
            data = self._data(study, spec)
            if lease.phase == "finalize":
                self._finalize(lease, study, spec, data)
            else:
                self._search(lease, spec, data)
        except LeaseLost as error:
            moved_on = lease.phase == "search" and self._store.studies.get(lease.study_id).state not in SEARCHED
            log.log(logging.INFO if moved_on else logging.WARNING, "%s; its trials are dropped", error)
        except (InvalidInput, TrialError) as error:
            self._fail(lease, str(error))
        except DatabaseUnavailable:
            raise
        except Exception as error:  # a bug must cost one study, not the worker, and be told
            log.exception("study %d failed", lease.study_id)
            self._fail(lease, f"internal error: {type(error).__name__}: {error}")

    def _fail(self, lease: Lease, reason: str) -> None:
        try:
            self._store.studies.fail(lease, reason)
        except LeaseLost as error:
            log.warning("%s; %s is not recorded", error, reason)

    def _search(self, lease: Lease, spec: StudySpec, data: Prepared) -> None:
        plan = self._plan_to_repeat(lease.study_id, data)
        seconds, turn = self._settings.lease_seconds, self._settings.turn_seconds
        environment = Environment(self._settings.cache, seconds, self._stop, self._checkpoints, turn, plan)
        session = Session(self._store, lease, spec, data.device, environment)
        self._store.provenance.note(lease.study_id, made_of(data.table, self._device, session.plan))

        def stats() -> dict[str, Any]:
            return {
                "state": "searching",
                "study": lease.study_id,
                "lanes": session.lanes,
                "occupancy": round(session.occupancy, 4),
                "steady_occupancy": round(session.steady_occupancy, 4),
                "epochs_per_second": round(session.lane_epochs / session.timer.elapsed, 1),
                "shares": session.shares(),
            }

        try:
            with self._beating(stats):
                session.run()
        finally:
            self._last_shares = session.shares()
        self._beat(stats(), force=True)
        log.info("study %d: %s", lease.study_id, session.shares())

    def _plan_to_repeat(self, study_id: int, data: Prepared) -> Plan | None:
        """The plan of the study that this one replays, on the same data."""
        original = self._store.provenance.get(study_id).replay_of
        known = None if original is None else self._store.provenance.get(original).made_of
        if known is None:
            return None
        found = data_hash(data.table)
        if found != known["data_hash"]:
            raise TrialError(f"the data is not what study {original} had: its hash is {found}, not {known['data_hash']}")
        return Plan(**known["plan"])

    def _finalize(self, lease: Lease, study: StudyRecord, spec: StudySpec, data: Prepared) -> None:
        timer = Timer()
        renew = Renewal(self._store, lease, self._settings.lease_seconds)
        page, _ = self._store.history.page(study.id, state="complete", limit=1_000_000)
        who = f"worker {self.id}"

        def alive() -> None:
            if self._stop():
                raise LeaseLost("the worker is stopping")
            renew()

        def open_test() -> None:
            self._store.studies.open_test(study.id, who, "final score")

        known = self._store.provenance.get(study.id).made_of or {}
        plan = Plan(**known["plan"]) if "plan" in known else Plan(1, None)
        plan.take_threads()
        with self._beating(lambda: {"state": "finalizing", "study": study.id}):
            try:
                answer = Finalizer(spec, data, alive, plan.compiled(self._settings.cache)).run(ranked(spec, page), open_test)
            except LeaseLost:
                self._store.leases.release(lease)
                raise
        execution = execution_of(self._store, study.id, timer.elapsed, self._last_shares)
        kept = Keeper(study, spec, data).keep(answer).within(int(self._settings.max_model_mb * 2**20))
        result = Result.of(answer.findings, execution, kept.model, kept.pictures)
        report = f"[Report]({self._settings.public_url}/v1/studies/{study.id}/report)"
        self._store.studies.finish(lease, result.to_json(), kept.archive, note=f"**{result.verdict}**\n\n{report}")

    def _beating(self, stats: Callable[[], dict[str, Any]]) -> Heart:
        return Heart(lambda: self._beat(stats(), force=True))

    def _beat(self, stats: dict[str, Any], *, force: bool = False) -> None:
        if force or time.monotonic() - self._beat_at > BEAT_SECONDS:
            self._beat_at = time.monotonic()
            self._store.workers.beat(self.id, stats)

    def _data(self, study: StudyRecord, spec: StudySpec) -> Prepared:
        """A study's data on the device; that of the last study is kept, for finalizing comes right behind it."""
        key = f"{study.id}"
        if self._prepared is None or self._prepared[0] != key:
            table = load_table(self._source(study, spec))
            split = make_split(table, spec.validation, spec.seed, given=spec.data.split is not None)
            start = self._start(spec, table)
            if start is None:
                folds = prepare_all(table, split, PrepareOptions.of(spec.data))
            else:
                folds = prepare_alike(table, split, start.preprocessor, start.target)
            check_defined(spec, folds)
            on_device = DeviceData.of(
                folds,
                task=table.task,
                outputs=table.outputs,
                device=self._device,
                wanted=wanted_metrics(spec),
                positive=positive_class(spec, table),
                start=start.weights if start else None,
            )
            self._prepared = (key, Prepared(table, split, folds, on_device))
        return self._prepared[1]

    def _start(self, spec: StudySpec, table: RawTable) -> Start | None:
        """What a fine-tuning study begins with.

        Raises:
            TrialError: That network is gone, or another has taken its place since the study was submitted.
        """
        earlier = spec.model.start_from
        if earlier is None:
            return None
        try:
            archive = self._store.archives.get(earlier)
        except NotFound as error:
            raise TrialError(f"model.start_from: {error}") from None
        if archive.sha256 != spec.model.start_sha256:
            said = f"its archive's SHA-256 is {archive.sha256}, not {spec.model.start_sha256}"
            raise TrialError(f"model.start_from: the model of study {earlier} is not the one of the submit; {said}")
        return read_start(archive.content, table, spec.data.target or TARGET)

    def _source(self, study: StudyRecord, spec: StudySpec) -> DataSource:
        data = spec.data
        common: dict[str, Any] = {"task": str(spec.task), "categorical": data.categorical, "drop": data.drop}
        common |= {"groups": data.groups, "time": data.time, "split": data.split}
        common["layout"] = LAYOUTS[spec.model.word]
        if data.dataset in BUILTIN:
            return DataSource(name=data.dataset, **common)
        if study.dataset_id is not None:
            record = self._store.datasets.get(study.dataset_id)
            path = stored_path(self._settings.datasets_dir, record.id, record.format)
            return DataSource(path=path, format=record.format, target=data.target, **common)
        path = resolve_path(str(data.path), self._settings.data_roots)
        return DataSource(path=path, format=file_format(str(path), "data.path"), target=data.target, **common)


def wanted_metrics(spec: StudySpec) -> tuple[str, ...]:
    """The metrics that a study looks at: its objectives, and what early stopping monitors."""
    return (*spec.objectives, *([spec.early_stopping.monitor] if spec.early_stopping else []))


def positive_class(spec: StudySpec, table: RawTable) -> int:
    """The index of the class that `data.positive` names, else of the second of the sorted classes.

    Raises:
        TrialError: No class has this name.
    """
    if spec.data.positive is None:
        return 1
    if spec.data.positive not in table.labels:
        raise TrialError(f"data.positive: there is no class {spec.data.positive!r}, only {', '.join(table.labels)}")
    return table.labels.index(spec.data.positive)


def check_defined(spec: StudySpec, folds: Sequence[Fold]) -> None:
    """An area under a curve needs rows of two classes at least, which ordered or given parts may lack.

    Raises:
        TrialError: A metric that the study looks at has no value on some validation part.
    """
    areas = [name for name in wanted_metrics(spec) if name in RANKING_METRICS]
    for number, fold in enumerate(folds, start=1):
        if areas and len(np.unique(fold.y_valid)) < 2:
            raise TrialError(f"{areas[0]} has no value: all validation rows of part {number} are of one class")

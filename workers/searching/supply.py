"""The source of a session's trials: they are asked in advance, in the background, while the stacks train.

Between `start` and `collect` a thread reads what other workers have told, samples the next trials and writes them to the
database; the training thread waits for neither. Results that arrive meanwhile are kept until `collect`, so that what a
batch of proposals is based on follows from the order of calls, not from timing.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

from service.errors import NotFound, TrialError
from service.pruning import Judge
from service.search import Evidence, Past, Search
from service.spec import NoPruner, StudySpec, ThresholdPruner
from service.store import Store
from service.store.records import AskedTrial, FinishedTrial, Lease, Proposal, TrialResult
from service.tracing import span
from workers.timing import Timer


class Supply:
    """Trials for one lease. All methods belong to the training thread.

    Raises:
        TrialError: An earlier study that the search is to begin with has been deleted.
    """

    def __init__(self, store: Store, lease: Lease, spec: StudySpec, judge: Judge, *, seed: int) -> None:
        assert spec.metric is not None, "a stored spec is resolved"
        self._store = store
        self._lease = lease
        self._metric = spec.metric
        self._judge = judge
        # These two pruners do not compare a trial with earlier ones.
        self._compares = not isinstance(spec.pruner, NoPruner | ThresholdPruner)
        self._search = Search(spec, seed=seed, evidence=_evidence(store, spec))
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="supply")
        self._future: Future[tuple[list[AskedTrial], list[FinishedTrial]]] | None = None
        self._told: list[tuple[AskedTrial, TrialResult]] = []
        self._wanted = 0
        self._seen = 0
        self.dry = False
        """Whether the last request returned fewer trials than were wanted."""
        self.values: list[float | None] = []
        """Values of all finished trials in the order in which they became known; None for pruned or failed ones."""
        self.timer = Timer()

    def example(self) -> dict[str, object]:
        """Parameters of a trial that is never run, for measurements."""
        params, _ = self._search.propose(1)[0]
        self._search.adopt([])
        return params

    def start(self, wanted: int) -> None:
        """Start asking for ``wanted`` trials in the background."""
        if wanted > 0:
            self._wanted = wanted
            self._future = self._executor.submit(copy_context().run, self._ask, wanted)

    def collect(self) -> list[AskedTrial]:
        """The trials of the last `start`; results told meanwhile are then passed on to the search.

        Raises:
            LeaseLost, DatabaseUnavailable: See `Trials.ask`.
        """
        trials: list[AskedTrial] = []
        if self._future is not None:
            future, self._future = self._future, None
            trials, foreign = future.result()
            for other in foreign:
                curve = other.curve.get(self._metric, [])
                self._judge.remember(other.number, curve, complete=other.state == "complete", judged_here=False)
                self.values.append(other.value if other.state == "complete" else None)
            self.dry = len(trials) < self._wanted
        for trial, result in self._told:
            drawn = (trial.params, trial.distributions)
            self._search.tell(trial.number, result.state, result.value, result.epochs, drawn, [*result.also.values()])
            self.values.append(result.value if result.state == "complete" else None)
        self._told.clear()
        return trials

    def tell(self, trial: AskedTrial, result: TrialResult) -> None:
        """Tell the result of a trial of this lease."""
        self._told.append((trial, result))

    def close(self) -> None:
        """Stop the thread after its current request, whose trials are requeued with the lease."""
        self._executor.shutdown(wait=True)

    def _ask(self, wanted: int) -> tuple[list[AskedTrial], list[FinishedTrial]]:
        with self.timer.section("database"), span("learn"):
            foreign = self._learn_from_others()
        with self.timer.section("sampling"), span("sample", trials=wanted):
            proposals = [Proposal(*drawn) for drawn in self._search.propose(wanted)]
        with self.timer.section("database"), span("ask", trials=wanted):
            trials = self._store.trials.ask(self._lease, proposals, self._planned)
        self._search.adopt([trial.number for trial in trials if trial.fresh])
        return trials, foreign

    def _planned(self, number: int) -> Proposal | None:
        drawn = self._search.planned(number)
        return None if drawn is None else Proposal(*drawn)

    def _learn_from_others(self) -> list[FinishedTrial]:
        """Tell the search the trials of other workers that have finished since the last call; returns them."""
        foreign, self._seen = self._store.history.of_others(self._lease, self._seen, curves=self._compares)
        for trial in foreign:
            drawn = (trial.params, trial.distributions)
            self._search.tell(trial.number, trial.state, trial.value, trial.epochs, drawn, [*trial.also.values()])
        return [*foreign]


def _evidence(store: Store, spec: StudySpec) -> Evidence:
    """The trials of the studies that a search begins with."""
    studies = []
    for study_id in spec.search_from:
        try:
            sign = 1.0 if store.studies.get(study_id).direction == "minimize" else -1.0
        except NotFound:
            raise TrialError(f"study {study_id}, whose trials the search is to begin with, has been deleted") from None
        finished = store.history.since(study_id, 0)
        studies.append(
            [
                Past(each.params, each.state == "complete", sign * each.value, each.epochs)
                for each in finished
                if each.value is not None
            ]
        )
    return Evidence.of(spec, studies)

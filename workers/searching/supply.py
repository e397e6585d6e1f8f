"""Where a session's trials come from: asked ahead, in the background, while the stacks train.

Between `start` and `collect` a thread takes in what other workers told, draws the next trials and books them in the
database; the training thread does not wait for either. What trials came to meanwhile is kept until `collect`, so what a
batch of proposals has seen follows from the order of calls, not from timing.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from service.pruning import Judge
from service.search import Search
from service.spec import NoPruner, StudySpec, ThresholdPruner
from service.store import Store
from service.store.records import AskedTrial, FinishedTrial, Lease, Proposal, TrialResult
from workers.timing import Timer


class Supply:
    """Trials for one lease. All methods belong to the training thread."""

    def __init__(self, store: Store, lease: Lease, spec: StudySpec, judge: Judge, *, seed: int) -> None:
        assert spec.metric is not None, "a stored spec is resolved"
        self._store = store
        self._lease = lease
        self._metric = spec.metric
        self._judge = judge
        # These compare a trial with none that came before it.
        self._compares = not isinstance(spec.pruner, NoPruner | ThresholdPruner)
        self._search = Search(spec, seed=seed)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="supply")
        self._future: Future[tuple[list[AskedTrial], list[FinishedTrial]]] | None = None
        self._told: list[tuple[AskedTrial, TrialResult]] = []
        self._wanted = 0
        self._seen = 0
        self.dry = False
        """Whether the last asking brought fewer trials than were wanted."""
        self.values: list[float | None] = []
        """Of all finished trials in the order of hearing of them, None for those that were pruned or failed."""
        self.timer = Timer()

    def example(self) -> dict[str, object]:
        """Parameters of a trial that is never run, to measure with."""
        params, _ = self._search.propose(1)[0]
        self._search.adopt([])
        return params

    def start(self, wanted: int) -> None:
        """Begin to ask for so many trials."""
        if wanted > 0:
            self._wanted = wanted
            self._future = self._executor.submit(self._ask, wanted)

    def collect(self) -> list[AskedTrial]:
        """The trials of the last `start`; then take in the results told meanwhile.

        Raises:
            LeaseLost, DatabaseUnavailable: As `Trials.ask`.
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
        """Say how a trial of this lease ended."""
        self._told.append((trial, result))

    def close(self) -> None:
        """Stop the thread; what it is at is finished, and whatever it brings goes back with the lease."""
        self._executor.shutdown(wait=True)

    def _ask(self, wanted: int) -> tuple[list[AskedTrial], list[FinishedTrial]]:
        with self.timer.section("database"):
            foreign = self._learn_from_others()
        with self.timer.section("sampling"):
            proposals = [Proposal(*drawn) for drawn in self._search.propose(wanted)]
        with self.timer.section("database"):
            trials = self._store.trials.ask(self._lease, proposals, self._planned)
        self._search.adopt([trial.number for trial in trials if trial.fresh])
        return trials, foreign

    def _planned(self, number: int) -> Proposal | None:
        drawn = self._search.planned(number)
        return None if drawn is None else Proposal(*drawn)

    def _learn_from_others(self) -> list[FinishedTrial]:
        """Take in the trials told since the last look that were not run here; returns them."""
        foreign, self._seen = self._store.history.of_others(self._lease, self._seen, curves=self._compares)
        for trial in foreign:
            drawn = (trial.params, trial.distributions)
            self._search.tell(trial.number, trial.state, trial.value, trial.epochs, drawn, [*trial.also.values()])
        return [*foreign]

"""The outcome of candidates as parts of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.result import Ablation, Gap, Interval, Member, Selection, Setting, Single, Spread
from service.result import Ensemble as EnsembleScores
from service.spec import GAP, Metric
from service.spec.metrics import Further
from workers.answer.candidates import Candidate
from workers.answer.ensemble import Ensemble
from workers.answer.intervals import difference, interval, over_seeds
from workers.answer.networks import Measured
from workers.scoring.scores import Scores, spread


@dataclass(frozen=True)
class Statement:
    """States the outcome of candidates. ``sign`` is +1 if a lower value of the metric is better, else −1."""

    metric: Metric
    sign: float
    winner: Candidate
    measured: Mapping[Candidate, Measured]
    further: tuple[Further, ...] = ()
    """The study's further objectives."""

    def setting(self, candidate: Candidate) -> Setting:
        """One setting with its scores; without scores if no seed of it could be trained."""
        assert candidate.role != "ablation", "an ablation is no setting of its own"
        untrained = Setting(
            name=candidate.name,
            role=candidate.role,
            trial=candidate.trial,
            recipe=candidate.recipe.said(),
            regularizers=candidate.recipe.regularizers(),
            train=None,
            valid=None,
            test=None,
            gap=None,
            behind_winner=None,
            train_loss=None,
            also=None,
        )
        measured = self.measured.get(candidate)
        if measured is None:
            return untrained
        losses = [run.curve["train_loss"][run.best_epoch] for run in candidate.runs.values()]
        return untrained.scored(
            train=spread(measured.train),
            valid=candidate.valid,
            test=None if measured.test is None else interval(measured.test, self.metric),
            gap=None if measured.test is None else self._gap(measured, measured.test),
            behind_winner=self._behind(measured),
            train_loss=spread(losses),
            also={name: self._further(name, candidate, measured) for name in self.further},
        )

    def _further(self, name: Further, candidate: Candidate, measured: Measured) -> Spread:
        """A further objective over the seeds, as the search computes it for a trial."""
        if name == GAP:
            return spread(self.sign * (measured.valid.exact - measured.train))
        return spread([run.curve[name][run.best_epoch] for run in candidate.runs.values()])

    def _gap(self, measured: Measured, test: Scores) -> Gap:
        """How much worse the metric is on rows further from training; positive is worse."""
        train, valid, unseen = (float(np.mean(each)) for each in (measured.train, measured.valid.exact, test.exact))
        return Gap(
            train_valid=self.sign * (valid - train),
            valid_test=self.sign * (unseen - valid),
            train_test=self.sign * (unseen - train),
        )

    def _behind(self, measured: Measured) -> Interval | None:
        winner = self.measured[self.winner]
        places, other_places = winner.common(measured)
        if measured is winner or not places or winner.test is None or measured.test is None:
            return None
        return difference(winner.test.only(places), measured.test.only(other_places), self.sign)

    def ablation(self, ablated: Sequence[Candidate]) -> tuple[Ablation, ...]:
        """What is lost on validation data without each regularizer, with an interval over the seeds."""
        return tuple(self._ablated(each) for each in ablated if each.runs)

    def _ablated(self, candidate: Candidate) -> Ablation:
        assert candidate.without is not None, "it is an ablation"
        runs = self.winner.runs
        changes = [
            self.sign * (run.best_value - runs[seed].best_value) for seed, run in candidate.runs.items() if seed in runs
        ]
        low, high = over_seeds(changes)
        change = self.sign * (candidate.valid.mean - self.winner.valid.mean)
        return Ablation(without=candidate.without, valid=candidate.valid, change=change, low=low, high=high, n=len(changes))

    def selection(self, first: Candidate) -> Selection:
        """How optimistic the search's best value was, compared with new seeds on validation rows and on test rows."""
        test = self.measured[first].test or self.measured[self.winner].test
        assert first.found is not None, "it is a finalist"
        assert test is not None, "the test part is open"
        valid, unseen = first.valid.mean, float(test.exact.mean())
        return Selection(
            name=first.name,
            found=first.found,
            valid=valid,
            test=unseen,
            optimism_valid=self.sign * (valid - first.found),
            optimism_test=self.sign * (unseen - first.found),
        )

    def optimism(self) -> float:
        """How much better the winner was in the search than over new seeds on the same rows."""
        assert self.winner.found is not None, "the winner is a finalist"
        return self.sign * (self.winner.valid.mean - self.winner.found)

    def ensemble(self, ensemble: Ensemble, test: Scores) -> EnsembleScores:
        """The ensemble compared with the winner's network with the best validation score."""
        winner = self.measured[self.winner]
        assert winner.test is not None, "the test part is open"
        place = best_place(winner, self.sign)
        single = winner.test.only([place])
        return EnsembleScores(
            members=tuple(Member(name=each.name, seed=index, share=share) for each, index, share in ensemble.members),
            valid=ensemble.valid,
            test=interval(test, self.metric),
            single=Single(
                name=self.winner.name,
                seed=winner.indices[place],
                valid=float(winner.valid_exact[place]),
                test=interval(single, self.metric),
            ),
            gain=difference(test, single, self.sign),
        )


def best_place(measured: Measured, sign: float) -> int:
    """Position of the candidate's network with the best validation score on the first fold."""
    return int(np.argmin(sign * measured.valid_exact))

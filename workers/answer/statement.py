"""The result in plain JSON values; its shape is described in `workers.answer`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.spec import GAP
from workers.answer.candidates import Candidate
from workers.answer.ensemble import Ensemble
from workers.answer.intervals import difference, interval, over_seeds
from workers.answer.networks import Measured
from workers.scoring.scores import Scores, Spread


@dataclass(frozen=True)
class Teller:
    """Says what came of candidates. ``sign`` is +1 where a lower value of the metric is better."""

    metric: str
    sign: float
    winner: Candidate
    measured: Mapping[Candidate, Measured]
    further: tuple[str, ...] = ()
    """The study's further objectives."""

    def setting(self, candidate: Candidate) -> dict[str, Any]:
        """One setting with its scores; without scores where no seed of it could be trained."""
        said: dict[str, Any] = {
            "name": candidate.name,
            "role": candidate.role,
            "trial": candidate.trial,
            "recipe": candidate.recipe.said(),
            "regularizers": list(candidate.recipe.regularizers()),
        }
        measured = self.measured.get(candidate)
        if measured is None or measured.test is None:
            return {**said, **dict.fromkeys(("train", "valid", "test", "gap", "behind_winner", "train_loss", "also"))}
        losses = [run.curve["train_loss"][run.best_epoch] for run in candidate.runs.values()]
        return {
            **said,
            "train": Spread.of(measured.train).to_json(),
            "valid": candidate.valid.to_json(),
            "test": interval(measured.test, self.metric).to_json(),
            "gap": self._gap(measured, measured.test),
            "behind_winner": self._behind(measured),
            "train_loss": Spread.of(losses).to_json(),
            "also": {name: self._further(name, candidate, measured).to_json() for name in self.further},
        }

    def _further(self, name: str, candidate: Candidate, measured: Measured) -> Spread:
        """A further objective over the seeds, as the search takes it of a trial."""
        if name == GAP:
            return Spread.of(self.sign * (measured.valid.exact - measured.train))
        return Spread.of([run.curve[name][run.best_epoch] for run in candidate.runs.values()])

    def _gap(self, measured: Measured, test: Scores) -> dict[str, float]:
        """How much worse the metric is on rows further from training; positive is worse."""
        train, valid, unseen = (float(np.mean(each)) for each in (measured.train, measured.valid.exact, test.exact))
        return {
            "train_valid": self.sign * (valid - train),
            "valid_test": self.sign * (unseen - valid),
            "train_test": self.sign * (unseen - train),
        }

    def _behind(self, measured: Measured) -> dict[str, Any] | None:
        ours = self.measured[self.winner]
        here, there = ours.common(measured)
        if measured is ours or not here or ours.test is None or measured.test is None:
            return None
        return difference(ours.test.only(here), measured.test.only(there), self.sign).to_json()

    def ablation(self, ablated: Sequence[Candidate]) -> list[dict[str, Any]]:
        """What is lost on validation data without each regularizer, with an interval over the seeds."""
        return [self._ablated(each) for each in ablated if each.runs]

    def _ablated(self, candidate: Candidate) -> dict[str, Any]:
        ours = self.winner.runs
        changes = [
            self.sign * (run.best_value - ours[seed].best_value) for seed, run in candidate.runs.items() if seed in ours
        ]
        low, high = over_seeds(changes)
        return {
            "without": candidate.without,
            "valid": candidate.valid.to_json(),
            "change": self.sign * (candidate.valid.mean - self.winner.valid.mean),
            "low": low if math.isfinite(low) else None,
            "high": high if math.isfinite(high) else None,
            "n": len(changes),
        }

    def selection(self, first: Candidate) -> dict[str, Any]:
        """How optimistic the search's best value was: beside new seeds of that setting, and beside the test rows."""
        test = self.measured[first].test
        assert first.found is not None, "it is a finalist"
        assert test is not None, "the test part is open"
        valid, unseen = first.valid.mean, float(test.exact.mean())
        return {
            "name": first.name,
            "found": first.found,
            "valid": valid,
            "test": unseen,
            "optimism_valid": self.sign * (valid - first.found),
            "optimism_test": self.sign * (unseen - first.found),
        }

    def optimism(self) -> float:
        """What the search had measured of the winner, too good by so much beside new seeds on the same rows."""
        assert self.winner.found is not None, "the winner is a finalist"
        return self.sign * (self.winner.valid.mean - self.winner.found)

    def ensemble(self, ensemble: Ensemble, test: Scores) -> dict[str, Any]:
        """The ensemble beside the winner's network with the best validation score."""
        ours = self.measured[self.winner]
        assert ours.test is not None, "the test part is open"
        place = best_place(ours, self.sign)
        single = ours.test.only([place])
        return {
            "members": [
                {"name": candidate.name, "seed": index, "share": share} for candidate, index, share in ensemble.members
            ],
            "valid": ensemble.valid,
            "test": interval(test, self.metric).to_json(),
            "single": {
                "name": self.winner.name,
                "seed": ours.indices[place],
                "valid": float(ours.valid_exact[place]),
                "test": interval(single, self.metric).to_json(),
            },
            "gain": difference(test, single, self.sign).to_json(),
        }


def best_place(measured: Measured, sign: float) -> int:
    """Which of a candidate's networks has the best validation score on the first fold."""
    return int(np.argmin(sign * measured.valid_exact))

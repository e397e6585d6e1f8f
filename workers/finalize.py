"""The answer: finalists retrained over seeds, the winner chosen on validation, the locked test part scored once.

A search returns the luckiest of many trials. Here the best settings, the same network without regularization and the
framework's defaults are trained again, each over the same seeds, as lanes of as few stacks as possible. The winner is
the best mean over seeds on validation data; only then is the test part opened, and that is put on record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from service.search import recipe
from service.spec import Recipe, StudySpec
from service.store.records import StudyRecord, TrialRecord
from workers.data import Fold, RawTable, Split
from workers.data.locked import test_part
from workers.keeping import Keeper, Kept
from workers.models import ModelShape, build_model
from workers.scoring import Interval, Spread, test_interval
from workers.session import seed_of
from workers.stack.device import DeviceData
from workers.stack.stack import StackKey
from workers.training import Protocol, Run, StackRunner

FINALISTS = 5
SEEDS = 5
_PLAIN_RECIPE = Recipe({})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A study's data in all the forms that finalizing needs."""

    table: RawTable
    split: Split
    folds: Sequence[Fold]
    device: DeviceData


@dataclass
class Candidate:
    """One setting to be trained over seeds, and what came of it. ``role`` is finalist, baseline or ablation."""

    name: str
    role: str
    recipe: Recipe
    early_stopping: bool = True
    trial: int | None = None
    found: float | None = None
    """What the search had measured, on one seed, as the luckiest of many."""
    without: str | None = None
    runs: dict[int, Run] = field(default_factory=dict)
    """By index of the seed, those that trained to an end."""
    weights: dict[int, list[dict[str, Tensor]]] = field(default_factory=dict)
    """By index of the seed, a state dict per fold."""

    @property
    def values(self) -> list[float]:
        """The validation value of every seed that trained to an end."""
        return [run.best_value for _, run in sorted(self.runs.items())]

    @property
    def valid(self) -> Spread:
        """Validation score over seeds."""
        return Spread.of(self.values or [float("nan")])


def candidates(spec: StudySpec, trials: Sequence[TrialRecord]) -> list[Candidate]:
    """The top settings, then the baselines that belong to the best of them."""
    finalists = []
    for trial in trials[:FINALISTS]:
        setting = recipe(spec, trial.params)
        finalists.append(Candidate(f"trial {trial.number}", "finalist", setting, trial=trial.number, found=trial.value))
    best = finalists[0].recipe
    shape = {name: best[name] for name in ("widths", "width", "depth", "activation", "batch_size") if name in best}
    return [
        *finalists,
        Candidate("unregularized", "baseline", best.unregularized(), early_stopping=False),
        Candidate("early stopping only", "baseline", best.unregularized()),
        Candidate("framework defaults", "baseline", Recipe({**_PLAIN_RECIPE, **shape}), early_stopping=False),
    ]


def ablations(winner: Candidate) -> list[Candidate]:
    """The winner with each of its regularizers switched off, one at a time."""
    return [
        Candidate(f"without {name}", "ablation", winner.recipe.without(name), without=name)
        for name in winner.recipe.regularizers()
    ]


class Finalizer:
    """Turns a searched study into its result. ``alive`` is called between epochs and raises when the lease is lost."""

    def __init__(self, study: StudyRecord, spec: StudySpec, data: Prepared, alive: Callable[[], None]) -> None:
        assert spec.metric is not None, "a stored spec is resolved"
        self._study = study
        self._spec = spec
        self._data = data
        self._alive = alive
        self._metric = spec.metric
        self._sign = 1.0 if spec.direction == "minimize" else -1.0
        self.kept: Kept | None = None
        """What is kept of the winner, once `run` is through."""

    def run(self, trials: Sequence[TrialRecord], open_test: Callable[[], None]) -> dict[str, Any]:
        """Train, choose, open the test part, score.

        Args:
            trials: Complete trials of the study, best first.
            open_test: Puts the reading of the test part on record; called once, before it.
        """
        everyone = candidates(self._spec, trials)
        self._train(everyone)
        finalists = [c for c in everyone if c.role == "finalist" and c.values]
        winner = min(finalists, key=lambda c: self._sign * c.valid.mean)
        ablated = ablations(winner)
        self._train(ablated)
        open_test()
        fold = self._data.folds[0]
        features, target = test_part(self._data.table, self._data.split, fold)
        test = torch.from_numpy(features), torch.from_numpy(target)
        scored = self._scored(everyone, *test)
        baseline = next(c for c in everyone if c.name == "unregularized")
        self.kept = Keeper(self._study, self._spec, self._data, test).keep(winner, baseline, scored.get(winner.name))
        return self._result(winner, everyone, ablated, scored)

    def _train(self, group: Sequence[Candidate]) -> None:
        """Train every candidate over the seeds, candidates with equal keys as one stack."""
        runs: dict[StackKey, list[tuple[Candidate, Run]]] = {}
        for candidate in group:
            key = StackKey.of(candidate.recipe, self._data.device.inputs, self._data.device.outputs)
            stopping = self._spec.early_stopping if candidate.early_stopping else None
            protocol = Protocol(self._metric, self._spec.budget.epochs, stopping)
            for index in range(SEEDS):
                lanes = tuple((fold, seed_of(self._spec.seed, 2, index, fold)) for fold in range(self._data.device.folds))
                run = Run(index, candidate.recipe, lanes, protocol)
                runs.setdefault(key, []).append((candidate, run))
        for key, pairs in runs.items():
            self._train_stack(StackRunner(key, self._data.device), pairs)

    def _train_stack(self, runner: StackRunner, pairs: Sequence[tuple[Candidate, Run]]) -> None:
        owner = {id(run): candidate for candidate, run in pairs}
        runner.add([run for _, run in pairs])
        while runner.wanted_lanes:
            self._alive()
            for run in runner.epoch():
                if run.ending:
                    if run.ending in ("converged", "epochs"):
                        owner[id(run)].runs[run.key] = run
                        owner[id(run)].weights[run.key] = runner.best_weights(run)
                    runner.remove(run)

    def _scored(self, everyone: Sequence[Candidate], x: Tensor, y: Tensor) -> Mapping[str, Interval]:
        """Test scores of all candidates but the ablations."""
        fold = self._data.folds[0]
        scores = {}
        for candidate in everyone:
            if not candidate.weights:
                continue
            out = torch.stack([self._predict(candidate, lanes[0], x) for lanes in candidate.weights.values()])
            scale = torch.full((len(out),), fold.target.scale)
            task = str(self._spec.task)
            seed, positive = self._spec.seed, self._data.device.positive
            scores[candidate.name] = test_interval(task, self._metric, out, y, scale, seed=seed, positive=positive)
        return scores

    def _predict(self, candidate: Candidate, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """(r, o) outputs of one trained network, as an ordinary module on the CPU."""
        shape = ModelShape.of(candidate.recipe, self._data.device.inputs, self._data.device.outputs)
        module = build_model(shape)
        module.load_state_dict(dict(weights), strict=True)
        module.eval()
        with torch.no_grad():
            return torch.cat([module(part) for part in torch.split(x, 4096)])

    def _result(
        self,
        winner: Candidate,
        everyone: Sequence[Candidate],
        ablated: Sequence[Candidate],
        scores: Mapping[str, Interval],
    ) -> dict[str, Any]:
        baseline = next(c for c in everyone if c.name == "unregularized")
        others = [c for c in everyone if c not in (winner, baseline)]
        train, valid = self._data.split.folds[0]
        return {
            "metric": self._metric,
            "direction": self._spec.direction,
            "winner": self._said(winner, scores),
            "baseline": self._said(baseline, scores),
            "others": [self._said(c, scores) for c in others],
            "ties": [c.name for c in others if c.role == "finalist" and self._ties(winner, c)],
            "ablation": [
                {
                    "without": c.without,
                    "valid": c.valid.to_json(),
                    "change": self._sign * (c.valid.mean - winner.valid.mean),
                }
                for c in ablated
                if c.values
            ],
            "optimism": self._sign * (winner.valid.mean - winner.found) if winner.found is not None else None,
            "seeds": SEEDS,
            "rows": {
                "train": len(train),
                "valid": len(valid),
                "test": len(self._data.split.test),
                "duplicates": self._data.split.duplicates,
            },
            "verdict": self._verdict(winner, baseline, scores),
        }

    def _said(self, candidate: Candidate, scores: Mapping[str, Interval]) -> dict[str, Any]:
        losses = [run.curve["train_loss"][run.best_epoch] for run in candidate.runs.values()]
        score = scores.get(candidate.name)
        return {
            "name": candidate.name,
            "role": candidate.role,
            "trial": candidate.trial,
            "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in candidate.recipe.said().items()},
            "regularizers": list(candidate.recipe.regularizers()),
            "valid": candidate.valid.to_json() if candidate.values else None,
            "test": score.to_json() if score else None,
            "train_loss": Spread.of(losses).to_json() if losses else None,
        }

    def _ties(self, winner: Candidate, other: Candidate) -> bool:
        """Whether two settings differ by less than twice the standard error of their difference over paired seeds."""
        if len(other.values) != len(winner.values) or len(winner.values) < 2:
            return False
        difference = Spread.of([b - a for a, b in zip(winner.values, other.values, strict=True)])
        return bool(abs(difference.mean) < 2.0 * difference.std / difference.n**0.5)

    def _verdict(self, winner: Candidate, baseline: Candidate, scores: Mapping[str, Interval]) -> str:
        ours, theirs = scores[winner.name], scores.get(baseline.name)
        defaults = scores.get("framework defaults")
        name = self._metric.replace("_", " ")
        which = ", ".join(winner.recipe.regularizers()) or "early stopping alone"
        sentence = f"Test {name} {ours.mean:.4g} with {which}"
        if theirs is None:
            return f"{sentence}; without regularization the network does not converge."
        gain = self._sign * (theirs.mean - ours.mean)
        clear = ours.high < theirs.low or ours.low > theirs.high
        certainty = "" if clear else " (the 95 % intervals overlap)"
        effect = "better than" if gain > 0 else "no better than"
        sentence += f", {effect} {theirs.mean:.4g} for the same network without regularization{certainty}"
        if defaults is not None:
            sentence += f", and {defaults.mean:.4g} with the framework's default training"
        return f"{sentence}."

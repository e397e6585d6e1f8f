"""Which settings are trained over seeds: finalists, baselines, and the winner without one regularizer at a time.

Independent of data and training; a `Candidate` holds the outcome of its training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from service.result import Spread
from service.search import recipe
from service.spec import SETTINGS, Recipe, StudySpec
from service.spec.model import MODEL_SETTINGS, MODULE
from service.spec.recipe import ARCHITECTURE
from service.store.records import TrialRecord
from workers.scoring.scores import spread
from workers.stack.run import Run

_PLAIN_RECIPE = Recipe({})
_SHAPE = (*MODEL_SETTINGS, "batch_size")

Weights = Mapping[str, Tensor]
"""A state dict on the CPU."""
Role = Literal["finalist", "baseline", "ablation"]


@dataclass(eq=False)
class Candidate:
    """One setting to be trained over seeds, and the outcome."""

    name: str
    role: Role
    recipe: Recipe
    early_stopping: bool = True
    trial: int | None = None
    found: float | None = None
    """The validation value in the search: one seed, the luckiest of many trials."""
    without: str | None = None
    continues: Candidate | None = None
    """The candidate that begins with the same training but stops earlier; both must be trained together."""
    first_fold: int = 0
    """Of the folds on the device that it trains on, where these are of several searches."""
    runs: dict[int, Run] = field(default_factory=dict)
    """Completed runs by index of the seed; in order of the index once training is over."""
    weights: dict[int, Sequence[Weights]] = field(default_factory=dict)
    """By index of the seed, a state dict per fold."""

    @property
    def values(self) -> list[float]:
        """The validation value of every completed seed, as the stack measured it."""
        return [run.best_value for run in self.runs.values()]

    @property
    def valid(self) -> Spread:
        """Validation score over seeds."""
        return spread(self.values or [float("nan")])


def finalists(spec: StudySpec, trials: Sequence[TrialRecord]) -> list[Candidate]:
    """The best settings, all different; ``trials`` are complete ones, best first."""
    chosen: list[Candidate] = []
    for trial in trials:
        setting = recipe(spec, trial.params)
        if all(dict(setting) != dict(other.recipe) for other in chosen):
            name = f"trial {trial.number}"
            chosen.append(Candidate(name, "finalist", setting, trial=trial.number, found=trial.value))
        if len(chosen) == spec.budget.finalists:
            break
    return chosen


def baselines(best: Recipe) -> list[Candidate]:
    """Settings to compare the best one with: the same network unregularized, and the framework's defaults.

    If the best setting is fine-tuned, so are these, with all weights free; the best one is also trained from scratch.
    """
    plain = best.unregularized()
    kept = [*_SHAPE, *(name for name in plain if name not in SETTINGS)]  # a module has arguments
    if best.word("fine_tune") != "off":
        kept += ARCHITECTURE
    if best.word("family") == MODULE:
        kept.append("init")
    shape = {name: plain[name] for name in kept if name in plain}
    early = Candidate("early stopping only", "baseline", plain)
    found = [
        Candidate("unregularized", "baseline", plain, early_stopping=False, continues=early),
        early,
        Candidate("framework defaults", "baseline", Recipe({**_PLAIN_RECIPE, **shape}), early_stopping=False),
    ]
    if best.word("fine_tune") != "off":
        found.append(Candidate("trained from scratch", "baseline", Recipe({**best, "fine_tune": "off"})))
    return found


def ablations(winner: Candidate) -> list[Candidate]:
    """The winner with each of its regularizers switched off, one at a time, and with its frozen weights free."""
    found = [
        Candidate(f"without {name}", "ablation", winner.recipe.without(name), without=name)
        for name in winner.recipe.removable()
    ]
    free = winner.recipe.thawed()
    return found if free is winner.recipe else [*found, Candidate("without freezing", "ablation", free, without="freezing")]

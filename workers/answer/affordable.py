"""How much of the finals a time budget leaves room for. Trains nothing."""

from __future__ import annotations

from service.spec import StudySpec
from service.store.records import StudyRecord

BASELINES = 2
"""Settings beside the finalists that train for all epochs."""
ABLATIONS = 3
"""Regularizers that a winner has on, about."""
SIZES = ((3, 3), (2, 2), (1, 2))
"""Numbers of finalists and seeds that are tried, from many to few; the last is the least."""


def affordable(spec: StudySpec, study: StudyRecord) -> StudySpec:
    """The spec with fewer finalists and seeds if its time budget is too short for all of them.

    What the finals take is estimated from the pace of the search, in epochs of a trial.

    Args:
        spec: The study's, resolved.
        study: As it is now, searched.
    """
    budget = spec.budget
    if budget.seconds is None or study.started_at is None:
        return spec
    spent = (study.now - study.started_at).total_seconds()
    epochs = (budget.seconds - spent) * study.epochs / max(spent, 1e-9)
    for finalists, seeds in ((budget.finalists, budget.seeds), *SIZES):
        chosen = {"finalists": min(finalists, budget.finalists), "seeds": min(seeds, budget.seeds)}
        settings = (chosen["finalists"] + BASELINES) * spec.searches + ABLATIONS
        wanted = settings * chosen["seeds"] * budget.epochs
        if wanted <= epochs:
            break
    return spec.model_copy(update={"budget": budget.model_copy(update=chosen)})

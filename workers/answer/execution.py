"""How a study was executed, as recorded in its store."""

from __future__ import annotations

from collections.abc import Mapping

from service.result import Concluded, Execution, Provenance, SearchedTrials
from service.store import Store


def execution_of(store: Store, study_id: int, finalizing_seconds: float, shares: Mapping[str, float]) -> Execution:
    """Time, trials, provenance and readings of the test part; ``shares`` of the search's time by kind of work."""
    now = store.studies.get(study_id)
    wall = round((now.now - (now.started_at or now.created_at)).total_seconds(), 3)
    concluded, made_of = store.conclusions.get(study_id), store.provenance.get(study_id).made_of
    return Execution(
        wall_seconds=wall,
        search_seconds=round(wall - finalizing_seconds, 3),
        finalizing_seconds=round(finalizing_seconds, 3),
        trials=SearchedTrials(**vars(now.counts), epochs=now.epochs),
        utilization=shares,
        concluded=None if concluded is None else Concluded.model_validate(concluded),
        provenance=None if made_of is None else Provenance.model_validate(made_of),
        test_accesses=len(store.studies.test_accesses(study_id)),
    )

"""Checks of a study whose search begins with the trials of earlier studies."""

from __future__ import annotations

from service.errors import InvalidInput, Issue, NotFound
from service.spec import StudySpec
from service.spec.external import any_spec
from service.store import Store, StudyState

_FIELD = "search_from"


def check_earlier(spec: StudySpec, store: Store, owner: str | None) -> None:
    """Check that the studies exist, have ended with trials, and searched something that this one searches too.

    Raises:
        InvalidInput: For each that doesn't.
    """
    issues = [
        Issue(f"{_FIELD}.{place}", message, study_id, "a finished study that searched some of the same settings")
        for place, study_id in enumerate(spec.search_from)
        if (message := _unsuitable(study_id, spec, store, owner))
    ]
    if issues:
        raise InvalidInput(issues)


def _unsuitable(study_id: int, spec: StudySpec, store: Store, owner: str | None) -> str | None:
    try:
        record = store.studies.get(study_id, owner)
    except NotFound:
        return f"there is no study {study_id}"
    if record.state is not StudyState.FINISHED:
        return f"study {study_id} is {record.state}, not finished"
    searched = any_spec(record.spec).searched
    if set(searched).isdisjoint(spec.searched):
        return f"study {study_id} searched other settings only: {', '.join(searched) or 'none'}"
    return None

"""Routes that change studies: their priority and budget, pause, resume, cancel, extend, single trials, delete."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response, status

from service.api.access import WithCaller
from service.api.bodies import JsonRoute
from service.api.budgets import check_changed, check_more
from service.api.events import etag
from service.api.idempotency import WithKey
from service.api.models import ExtendIn, StudyId, StudyOut, TrialNumber, TrialOut
from service.api.patches import ChangeOut, ChangePage, StudyPatch
from service.api.problems import answers
from service.api.queries import LINKED, WithPage
from service.api.usage import quotas_of
from service.leftovers import Leftovers
from service.settings import Settings
from service.store import Store

_NEWS: Any = {200: {"headers": {"ETag": {"schema": {"type": "string"}, "description": "Of the study as it is now."}}}}


def router(store: Store, settings: Settings, leftovers: Leftovers) -> APIRouter:
    """Changes under /v1/studies."""
    routes = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=JsonRoute)

    @routes.patch("/{study_id}", responses={**_NEWS, **answers(403, 404, 409, 412, 413, 415, 422, 429)})
    def change(
        study_id: StudyId,
        patch: StudyPatch,
        response: Response,
        request: WithKey,
        caller: WithCaller,
        if_match: Annotated[
            str | None,
            Header(
                description="An `ETag` of the study: 412 if somebody has changed it since. What workers add does not count."
            ),
        ] = None,
    ) -> StudyOut:
        """Change tags and notes, and priority or budget as far as trials stay comparable; what is not named stays as it is.

        A finished study that is given more trials, time, seeds or finalists goes on, and is finalized again.
        """
        check_changed(store.studies.get(study_id), patch.values)
        quotas = quotas_of(settings, caller)
        store.studies.change(study_id, patch.change, request, caller.actor, quotas, revisions=_revisions(if_match))
        tag, record = store.studies.tagged(study_id)
        response.headers["etag"] = etag(tag)
        return StudyOut.of(record)

    @routes.get("/{study_id}/changes", responses={**LINKED, **answers(404, 422)})
    def list_changes(study_id: StudyId, page: WithPage) -> ChangePage:
        """What people have changed in a study, and who, latest first."""
        records, total = store.studies.changes(study_id, offset=page.offset, limit=page.limit)
        page.link(total)
        changes = [ChangeOut.of(record) for record in records]
        return ChangePage(changes=changes, total=total, offset=page.offset, limit=page.limit)

    _transitions(routes, store, settings)
    _ends(routes, store, leftovers)
    return routes


def _transitions(routes: APIRouter, store: Store, settings: Settings) -> None:
    @routes.post("/{study_id}/cancel", responses=answers(404, 409, 422))
    def cancel(study_id: StudyId, request: WithKey, caller: WithCaller) -> StudyOut:
        """Cancel a study; its finished trials are kept."""
        store.studies.cancel(study_id, request, caller.actor)
        return StudyOut.of(store.studies.get(study_id))

    @routes.post("/{study_id}/pause", responses=answers(404, 409, 422))
    def pause(study_id: StudyId, request: WithKey, caller: WithCaller) -> StudyOut:
        """Pause a study: no more of its trials are handed out."""
        store.studies.pause(study_id, request, caller.actor)
        return StudyOut.of(store.studies.get(study_id))

    @routes.post("/{study_id}/resume", responses=answers(404, 409, 422))
    def resume(study_id: StudyId, request: WithKey, caller: WithCaller) -> StudyOut:
        """Resume a paused study."""
        store.studies.resume(study_id, request, caller.actor)
        return StudyOut.of(store.studies.get(study_id))

    @routes.post("/{study_id}/extend", responses=answers(403, 404, 409, 413, 415, 422, 429))
    def extend(study_id: StudyId, more: ExtendIn, request: WithKey, caller: WithCaller) -> StudyOut:
        """Add trials to the budget of a study, which may be finished."""
        check_more(store.studies.get(study_id), more.trials)
        store.studies.extend(study_id, more.trials, request, caller.actor, quotas_of(settings, caller))
        return StudyOut.of(store.studies.get(study_id))


def _ends(routes: APIRouter, store: Store, leftovers: Leftovers) -> None:
    @routes.delete("/{study_id}", status_code=status.HTTP_204_NO_CONTENT, responses=answers(404, 409, 422))
    def delete(study_id: StudyId) -> None:
        """Delete an ended study and its trials."""
        store.studies.delete(study_id)
        leftovers.appear()

    @routes.post("/{study_id}/trials/{number}/stop", responses=answers(404, 409, 422))
    def stop_trial(study_id: StudyId, number: TrialNumber, request: WithKey, caller: WithCaller) -> TrialOut:
        """Stop one trial, while the search goes on.

        A running one ends within an epoch, complete with its best value, as if it had converged; a program is told so when
        it next reports. One that waits ends now, as pruned. Either way it counts as one of the budget's trials.
        """
        store.stops.stop(study_id, number, request, caller.actor)
        return TrialOut.of(store.history.trial(study_id, number))


def _revisions(if_match: str | None) -> list[int] | None:
    """The revisions in the tags of an `If-Match` header; None for any.

    >>> _revisions('W/"3-5d41402abc4b2a76", W/"4-0"'), _revisions("*"), _revisions('"of another"')
    ([3, 4], None, [])
    """
    if if_match is None or if_match.strip() == "*":
        return None
    return [int(found) for found in re.findall(r'"(\d{1,9})-[0-9a-f]+"', if_match)]

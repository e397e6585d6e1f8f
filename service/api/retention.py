"""Deleting what is old: by the operator's settings, every hour, and on an admin's demand. All of it is in the audit log."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.api.access import WithCaller
from service.api.bodies import JsonModel, JsonRoute
from service.api.problems import answers
from service.errors import Conflict, NotFound
from service.leftovers import Leftovers, forget_dataset
from service.settings import Settings
from service.store import Store
from service.store.actors import NOBODY, Actor, AuditEntry
from service.store.retention import Ages, Old

log = logging.getLogger(__name__)

ROUTE = "/v1/prune"
_LONG = 36_500


class PruneIn(JsonModel):
    """After how many days what is to be deleted; null for never."""

    studies: float | None = Field(None, ge=0, le=_LONG, description="Of the end of studies, with all that is theirs.")
    models: float | None = Field(None, ge=0, le=_LONG, description="The same, their trained models only.")
    datasets: float | None = Field(None, ge=0, le=_LONG, description="Of the last use of data sets.")
    steps: float | None = Field(None, ge=0, le=_LONG, description="Of the end of studies: values after single epochs.")
    dry_run: bool = Field(False, description="Delete nothing; only tell what would be.")


class PruneOut(BaseModel):
    """What was deleted, or would be."""

    studies: list[int]
    models: list[int] = Field(description="Studies whose models they are.")
    datasets: list[str]
    steps: list[int] = Field(description="Studies whose trials' values they are.")
    dry_run: bool

    @classmethod
    def of(cls, old: Old, *, dry_run: bool) -> Self:
        """The response for what was found."""
        return cls(**{name: [*ids] for name, ids in vars(old).items()}, dry_run=dry_run)


def router(store: Store, leftovers: Leftovers) -> APIRouter:
    """/v1/prune, for admins."""
    routes = APIRouter(tags=["operations"], route_class=JsonRoute)

    @routes.post(ROUTE, responses=answers(413, 415, 422))
    def prune_now(given: PruneIn, caller: WithCaller) -> PruneOut:
        """Delete what is older than that, at most 500 of each kind. What has not ended and what is tagged `keep` stays."""
        ages = Ages(**given.model_dump(exclude={"dry_run"}))
        old = store.retention.find(ages) if given.dry_run else prune(store, leftovers, ages, caller.actor)
        return PruneOut.of(old, dry_run=given.dry_run)

    return routes


def prune_by_settings(store: Store, settings: Settings, leftovers: Leftovers) -> None:
    """Delete what the operator's settings tell, until there is no more of it."""
    names = ("studies", "models", "datasets", "steps")
    ages = Ages(**{name: getattr(settings, f"retention_{name}") for name in names})
    while ages != Ages() and (old := prune(store, leftovers, ages)).things:
        log.info("deleted as old: %s", ", ".join(old.things))
    kept = settings.retention_events * 86_400.0
    store.events.forget(kept)
    store.webhooks.forget(kept)


def prune(store: Store, leftovers: Leftovers, ages: Ages, by: Actor = NOBODY) -> Old:
    """Delete what is older than that, and write it down; returns it, without what somebody else has deleted or uses now."""
    found = store.retention.find(ages)
    done: dict[str, list[int | str]] = {name: [] for name in vars(found)}
    for kind, keys in vars(found).items():
        for key in keys:
            with suppress(NotFound, Conflict):
                _drop(store, leftovers, kind, key)
                done[kind].append(key)
    old = Old(**done)  # type: ignore[arg-type]  # the ids are those that were found
    for thing in old.things:
        store.audit.write(AuditEntry(by, "DELETE", ROUTE, thing, 200))
    return old


def _drop(store: Store, leftovers: Leftovers, kind: str, key: int | str) -> None:
    if kind == "datasets":
        forget_dataset(store, leftovers.objects, str(key))
    elif kind == "studies":
        store.studies.delete(int(key))
        leftovers.appear()
    elif kind == "models":
        store.retention.drop_model(int(key))
        leftovers.appear()
    else:
        store.retention.drop_steps(int(key))

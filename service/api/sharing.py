"""Routes of sharing: an owner lets others read a study or a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import AfterValidator, Field

from service.api.access import Caller, WithCaller
from service.api.bodies import JsonModel, JsonRoute, storable, storable_text
from service.api.models import StudyId
from service.api.problems import answers
from service.datasets import BUILTIN
from service.errors import Conflict, NotFound
from service.store import Store
from service.store.sharing import EVERYBODY

Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(storable_text)]


class SharingModel(JsonModel):
    """Who may read something that is somebody else's."""

    owners: list[Name] = Field(default_factory=list, max_length=100, description="These owners.")
    everybody: bool = Field(False, description="All owners.")

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
        """The response for stored names."""
        return cls(owners=[name for name in names if name != EVERYBODY], everybody=EVERYBODY in names)

    @property
    def names(self) -> set[str]:
        """As they are stored."""
        return {*self.owners, *([EVERYBODY] if self.everybody else [])}


def router(store: Store) -> APIRouter:
    """/v1/studies/{id}/sharing and /v1/datasets/{id}/sharing."""
    routes = APIRouter(tags=["sharing"], route_class=JsonRoute)

    @routes.get("/v1/studies/{study_id}/sharing", responses=answers(403, 404, 422))
    def study_sharing(study_id: StudyId) -> SharingModel:
        """Who may read a study, beside its owner."""
        store.studies.owner(study_id)
        return SharingModel.of(store.sharing.of_study(study_id))

    @routes.put("/v1/studies/{study_id}/sharing", responses=answers(403, 404, 413, 415, 422))
    def share_study(study_id: StudyId, given: SharingModel, caller: WithCaller) -> SharingModel:
        """Let these owners read a study with all that belongs to it, and nobody else; nobody to end it."""
        store.sharing.share_study(study_id, given.names - {store.studies.owner(study_id)}, caller.actor)
        return SharingModel.of(store.sharing.of_study(study_id))

    @routes.get("/v1/datasets/{dataset_id}/sharing", responses=answers(403, 404, 409, 422))
    def dataset_sharing(dataset_id: str, caller: WithCaller) -> SharingModel:
        """Who may use a data set, beside its owner."""
        return SharingModel.of(store.sharing.of_dataset(dataset_id, _giver(store, dataset_id, caller)))

    @routes.put("/v1/datasets/{dataset_id}/sharing", responses=answers(403, 404, 409, 413, 415, 422))
    def share_dataset(dataset_id: str, given: SharingModel, caller: WithCaller) -> SharingModel:
        """Let these owners see a data set and use it in studies, and nobody else; studies that use it then go on."""
        giver = _giver(store, dataset_id, caller)
        store.sharing.share_dataset(dataset_id, giver, given.names - {giver})
        return SharingModel.of(store.sharing.of_dataset(dataset_id, giver))

    return routes


def _giver(store: Store, dataset_id: str, caller: Caller) -> str:
    """Who shares a data set: the caller; for an admin who does not have it, the owner who has it most recently.

    Raises:
        NotFound: There is no such data set.
        Conflict: It is built in, so everybody has it.
    """
    if dataset_id in BUILTIN:
        raise Conflict(f"the data set {dataset_id!r} is built in: everybody has it")
    if not storable(dataset_id):
        raise NotFound("data set", dataset_id)
    owners = store.datasets.get(dataset_id).owners
    if caller.whose in owners or not owners:
        return caller.whose
    return owners[0]

"""Routes that archive a study as one file, and restore it from one, on this or another server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, File, Query, Response, UploadFile, status
from fastapi.responses import StreamingResponse
from pydantic import Field

from service.api.access import Caller, WithCaller
from service.api.bodies import FormRoute, JsonRoute
from service.api.datasets import registered
from service.api.models import StudyId, StudyOut
from service.api.problems import answers
from service.api.sources import Fetched
from service.api.unzipping import StudyArchive, bad, opened
from service.api.usage import quotas_of
from service.api.zipping import DataFile, archive, opened_file, while_held
from service.datasets import BUILTIN, save_upload
from service.datasets.uploads import FOLDER, uploaded
from service.errors import Conflict, NotFound
from service.objects import Objects, open_objects
from service.result.portable import DATA_FOLDER, MODEL, ONNX, DataPart
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store
from service.store.portable import Restored
from service.store.records import StoredObject
from service.store.usage import Quotas
from service.trained import TrainedModels

RESTORE = "/v1/studies:restore"
_ZIP: Any = {200: {"content": {"application/zip": {}}, "description": "A ZIP file"}}


class RestoredOut(StudyOut):
    """A study that was restored."""

    unchanged: bool = Field(description="Whether the caller has restored the same archive before.")
    restored_from: dict[str, Any] = Field(description="`id`, `name` and `owner` of the study that was archived.")
    lacks: list[str] = Field(description="What the archive does not have, and what can't be done without it.")


def router(store: Store, settings: Settings) -> APIRouter:
    """/v1/studies/{id}/archive and /v1/studies:restore."""
    routes = APIRouter(tags=["studies"])
    _archive(routes, store, open_objects(settings))
    _restore(routes, store, settings)
    return routes


def _archive(routes: APIRouter, store: Store, objects: Objects) -> None:
    models = TrainedModels(store, objects)

    def get_archive(
        study_id: StudyId,
        caller: WithCaller,
        data: Annotated[bool, Query(description="Also the data set, if it was uploaded.")] = False,
    ) -> StreamingResponse:
        """An ended study as one ZIP file, from which `studies:restore` makes it again, here or elsewhere: spec, trials,
        result, changes, trained model, hashes and versions. The same study makes the same bytes.
        """
        parts = store.portable.parts(study_id)
        headers = {"content-disposition": f'attachment; filename="regsearch-study-{study_id}.zip"'}
        files, file = dict[str, BinaryIO](), None
        with ExitStack() as holding:
            if parts.study.model is not None:
                files[MODEL] = opened_file(holding, models.archive(study_id))
            if parts.onnx:
                files[ONNX] = opened_file(holding, models.onnx(study_id))
            if data:
                file = _data_file(holding, store, objects, (study_id, parts.study.dataset_id), caller)
            pieces = archive(parts, store.portable.trials(study_id), files, file)
            return StreamingResponse(while_held(holding.pop_all(), pieces), media_type="application/zip", headers=headers)

    routes.add_api_route(
        "/v1/studies/{study_id}/archive",
        get_archive,
        methods=["GET"],
        response_class=Response,
        responses={**_ZIP, **answers(404, 409, 422)},
        route_class_override=JsonRoute,
    )


def _data_file(
    holding: ExitStack, store: Store, objects: Objects, study: tuple[int, str | None], caller: Caller
) -> DataFile | None:
    """The uploaded data set of a study, held; None where its data is built in.

    Raises:
        Conflict: It is gone, or the operator's.
    """
    study_id, dataset_id = study
    if dataset_id is None:
        if isinstance(store.studies.get(study_id).spec.get("data", {}).get("path"), str):
            raise Conflict(f"the data of study {study_id} is a file of the server's operator: archive it without data")
        return None
    try:
        record = store.datasets.get(dataset_id, caller.owner)
    except NotFound:
        raise Conflict(f"the data set {dataset_id!r} of study {study_id} is gone: archive it without data") from None
    path = holding.enter_context(uploaded(objects, record.id, record.format))
    return DataFile(path, DataPart(name=record.name, filename=record.filename))


def _restore(routes: APIRouter, store: Store, settings: Settings) -> None:
    max_model, max_data = (int(most * 2**20) for most in (settings.max_model_mb, settings.max_upload_mb))

    def restore(
        response: Response, file: Annotated[UploadFile, File(description="An archive of a study.")], caller: WithCaller
    ) -> RestoredOut:
        """Restore a study from its archive: as it was when it ended, with all trials, result and model, and as the caller's.

        It does not go on, but may be replayed where its data set is in the archive or here. The same archive again is the
        same study.
        """
        quotas = quotas_of(settings, caller)
        with opened(file.file, max_model, max_data) as found:
            parts = found.parts()
            counts = found.counts(parts.study)
            spec = found.spec.model_copy(update={"owner": caller.whose})
            dataset_id = _data_set(found, spec, (caller.whose, quotas), store, settings)
            study_id, new = store.portable.find(caller.whose, found.digest), False
            if study_id is None:
                with _models(found, TrainedModels(store, open_objects(settings))) as kept:
                    given = Restored(parts, spec, counts, found.digest, dataset_id, kept.get(MODEL), kept.get(ONNX))
                    study_id, new = store.portable.restore(given, found.trials, quotas)
            origin = found.manifest.study.model_dump()
        response.headers["Location"] = f"/v1/studies/{study_id}"
        response.status_code = status.HTTP_201_CREATED if new else status.HTTP_200_OK
        study = StudyOut.of(store.studies.get(study_id))
        lacks = _lacks(spec, dataset_id)
        return RestoredOut(**study.model_dump(), unchanged=not new, restored_from=origin, lacks=lacks)

    routes.add_api_route(
        RESTORE,
        restore,
        methods=["POST"],
        status_code=status.HTTP_201_CREATED,
        responses=answers(403, 413, 415, 422, 507)
        | {200: {"model": RestoredOut, "description": "The caller has restored the same archive before."}},
        route_class_override=FormRoute,
    )


@contextmanager
def _models(found: StudyArchive, models: TrainedModels) -> Iterator[dict[str, StoredObject]]:
    """The models of an archive as objects, by their names in it; deleted unless they are named within the block."""
    kept: dict[str, StoredObject] = {}
    try:
        for name in found.models:
            with found.open(name) as stream:
                kept[name] = models.keep(stream, name.rpartition(".")[2])
        yield kept
    finally:
        models.discard(kept.values())


def _data_set(found: StudyArchive, spec: Any, whose: tuple[str, Quotas], store: Store, settings: Settings) -> str | None:
    """The data set of a study that is restored: from its archive, or as its owner has it; None without one.

    Raises:
        InvalidInput: That of the archive is not the study's, or can't be read.
        QuotaExceeded: Its owner would keep too much.
    """
    wanted = spec.data.dataset if isinstance(spec, StudySpec) and spec.data.dataset not in BUILTIN else None
    with suppress(NotFound):
        if wanted is not None:
            return store.datasets.get(wanted, whose[0]).id
    about = found.manifest.data
    if found.data is None or about is None:
        return None
    name = found.data.removeprefix(DATA_FOLDER)
    if name.split(".")[0] != wanted:
        bad(f"{found.data} is not the data set of the study", value=name, allowed=wanted)
    objects = open_objects(settings)
    with objects.arriving(FOLDER) as directory:
        with found.open(found.data) as stream:
            stored = save_upload(stream, name, directory, int(settings.max_upload_mb * 2**20))
        if stored.id != wanted:
            if stored.new:
                stored.path.unlink(missing_ok=True)
            bad(f"{found.data} does not have the content that its name tells", value=stored.id, allowed=wanted)
        given = Fetched(stored, about.filename, {"file": about.filename}, "file")
        return registered(store, objects, given, about.name, *whose).id


def _lacks(spec: Any, dataset_id: str | None) -> list[str]:
    """What can't be done with a restored study, and why."""
    if not isinstance(spec, StudySpec):
        return []
    found = []
    if spec.data.dataset is not None and spec.data.dataset not in BUILTIN and dataset_id is None:
        found.append("Its data set is neither in the archive nor here: it can't be replayed, and rows of it are not shown.")
    if spec.data.path is not None:
        found.append("Its data is a file of the other server: a replay needs the same file under the same path.")
    if spec.search_from or spec.model.start_from is not None:
        found.append("It began with other studies of that server: it can't be replayed.")
    return found

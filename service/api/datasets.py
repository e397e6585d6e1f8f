"""Routes of data sets: upload or fetch, list, describe, delete."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile, status

from service.api.access import WithCaller
from service.api.bodies import FormRoute, OnlyJsonRoute, storable
from service.api.inspection import inspect_apart
from service.api.models import DatasetOut, Received, SourceOut, VersionOut
from service.api.problems import answers
from service.api.sources import DatasetFrom, Fetched, fetch
from service.api.usage import quotas_of
from service.datasets import BUILTIN, StoredFile, TableInfo, save_upload
from service.datasets.uploads import FOLDER
from service.errors import Conflict, InvalidInput, NotFound, QuotaExceeded
from service.leftovers import forget_dataset
from service.objects import Objects, open_objects
from service.settings import Settings
from service.store import Store
from service.store.databases import check_database
from service.store.records import DatasetRecord
from service.store.usage import Quotas

PATH = "/v1/datasets"
_MOST_NAME, _MOST_FILENAME = 200, 300
"""Letters that the store keeps."""
_CREATED = status.HTTP_201_CREATED
_UNCHANGED = "The caller has the same content under the same name already."
_Name = Annotated[str | None, Form(max_length=_MOST_NAME, description="Display name; default: the file's name.")]
_FILES = (
    "CSV, Parquet, Feather or Excel with a table, NPZ with the arrays x and y, or a ZIP of images in folders by class. No "
    "pickles."
)


def router(store: Store, settings: Settings) -> APIRouter:
    """All routes under /v1/datasets.

    Raises:
        DatabaseUnavailable: The operator names a database that can't be read.
    """
    for name, url in settings.databases.items():
        check_database(name, url.get_secret_value())
    routes = APIRouter(prefix=PATH, tags=["data sets"], route_class=FormRoute)
    objects = open_objects(settings)
    _receive(routes, store, settings, objects)

    @routes.get("")
    def list_datasets(caller: WithCaller) -> list[DatasetOut]:
        """All data sets, built-in ones last."""
        uploaded = [DatasetOut.of(record) for record in store.datasets.list(caller.owner)]
        return uploaded + [_built_in(name, table) for name, table in BUILTIN.items()]

    @routes.get("/{dataset_id}", responses=answers(404, 422))
    def get_dataset(dataset_id: str, caller: WithCaller) -> DatasetOut:
        """One data set with its columns and their types."""
        if dataset_id in BUILTIN:
            return _built_in(dataset_id, BUILTIN[dataset_id])
        if not storable(dataset_id):
            raise NotFound("data set", dataset_id)
        return DatasetOut.of(store.datasets.get(dataset_id, caller.owner))

    _delete(routes, store, objects)
    return routes


def _receive(routes: APIRouter, store: Store, settings: Settings, objects: Objects) -> None:
    def fetch_dataset(wanted: DatasetFrom, response: Response, caller: WithCaller) -> Received:
        whose = (caller.whose, quotas_of(settings, caller))
        with objects.arriving(FOLDER) as directory:
            fetched = fetch(wanted, settings, directory)
            return _received(store, objects, fetched, wanted.name, whose, response)

    # The same path and method with another media type; its body is part of the description of the route below.
    routes.add_api_route(
        "",
        fetch_dataset,
        methods=["POST"],
        status_code=_CREATED,
        route_class_override=OnlyJsonRoute,
        include_in_schema=False,
    )

    @routes.post(
        "",
        status_code=_CREATED,
        responses=answers(403, 413, 415, 422, 507) | {200: {"model": Received, "description": _UNCHANGED}},
        openapi_extra={"requestBody": {"content": {"application/json": {"schema": DatasetFrom.model_json_schema()}}}},
    )
    def upload(
        response: Response,
        file: Annotated[UploadFile, File(description=_FILES)],
        caller: WithCaller,
        name: _Name = None,
    ) -> Received:
        """Store a data set: an uploaded file or, as JSON, what is at an address or what a query returns.

        Its id is a hash of its content, so the same content again is the same data set.
        """
        filename = file.filename or "data"
        for field, text in (("file", filename), ("name", name or "")):
            if not storable(text):
                allowed = "text without NUL and lone surrogates"
                raise InvalidInput.one(field, "contains NUL or a lone surrogate", value=text, allowed=allowed)
        whose = (caller.whose, quotas_of(settings, caller))
        with objects.arriving(FOLDER) as directory:
            stored = save_upload(file.file, filename, directory, int(settings.max_upload_mb * 2**20))
            fetched = Fetched(stored, filename, {"file": filename}, "file")
            return _received(store, objects, fetched, name, whose, response)


def _received(
    store: Store, objects: Objects, fetched: Fetched, name: str | None, whose: tuple[str, Quotas], response: Response
) -> Received:
    """The answer to a data set that was given."""
    name = name or Path(fetched.filename).name[:_MOST_NAME]
    earlier = store.datasets.versions(name, whose[0])
    record = registered(store, objects, fetched, name, *whose)
    response.headers["Location"] = f"{PATH}/{record.id}"
    unchanged = any(each.id == record.id for each in earlier)
    if unchanged:
        response.status_code = status.HTTP_200_OK
    others = [VersionOut(id=each.id, created_at=each.created_at) for each in earlier if each.id != record.id]
    return Received(**DatasetOut.of(record).model_dump(), unchanged=unchanged, others=others)


def registered(store: Store, objects: Objects, fetched: Fetched, name: str, owner: str, quotas: Quotas) -> DatasetRecord:
    """A stored file as a data set of its owner, if it is one, and within the quotas.

    Raises:
        InvalidInput: It is none.
        QuotaExceeded: Its owner would keep too much.
    """
    table, stored = _described(fetched), fetched.stored
    return _kept(
        store,
        objects,
        stored,
        DatasetRecord(
            id=stored.id,
            name=name,
            filename=fetched.filename[:_MOST_FILENAME],
            format=stored.format,
            size=stored.size,
            rows=table.rows,
            shape=table.shape,
            columns=tuple(asdict(column) for column in table.columns),
            sheet=asdict(table.sheet),
            sha256=stored.sha256,
            source=fetched.source,
        ),
        owner,
        quotas,
    )


def _delete(routes: APIRouter, store: Store, objects: Objects) -> None:
    @routes.delete("/{dataset_id}", status_code=status.HTTP_204_NO_CONTENT, responses=answers(404, 409, 422))
    def delete_dataset(dataset_id: str, caller: WithCaller) -> None:
        """Delete an uploaded data set and its file. 409 while a study that has not ended uses it, and for a built-in one.

        Studies that have ended keep results and models; they can't be replayed.
        """
        if dataset_id in BUILTIN:
            raise Conflict(f"the data set {dataset_id!r} is built in")
        if not storable(dataset_id):
            raise NotFound("data set", dataset_id)
        forget_dataset(store, objects, dataset_id, caller.owner)


def _described(fetched: Fetched) -> TableInfo:
    """Describe a stored file; one without a usable table is deleted, unless studies may use it."""
    stored, filename = fetched.stored, fetched.filename
    try:
        table = inspect_apart(stored.path, stored.format)
        if not all(storable(column.name) for column in table.columns):
            message = "has a column whose name contains NUL or a lone surrogate"
            raise InvalidInput.one("file", message, allowed="names without NUL and lone surrogates")
    except InvalidInput as error:
        if stored.new:
            stored.path.unlink(missing_ok=True)
        # Clients know the file by its name; its path on the server is not shown to them.
        raise InvalidInput(
            [
                replace(
                    issue,
                    field=fetched.field if issue.field == "file" else issue.field,
                    message=issue.message.replace(str(stored.path), filename),
                    value=filename if issue.value is None else issue.value,
                    allowed=issue.allowed or f"a {stored.format} file with a target and at least one input column",
                )
                for issue in error.issues
            ]
        ) from None
    return table


def _kept(
    store: Store, objects: Objects, stored: StoredFile, record: DatasetRecord, owner: str, quotas: Quotas
) -> DatasetRecord:
    """Keep and register a stored file; one that exceeds its owner's quota is deleted, unless studies may use it."""
    new = objects.put(stored.name, stored.path, new=stored.new)
    try:
        return store.datasets.add(record, owner, quotas)
    except QuotaExceeded:
        if new:
            objects.delete(stored.name)
        raise


def _built_in(name: str, table: TableInfo) -> DatasetOut:
    return DatasetOut.described(table, id=name, name=name, format="built-in", size=0, built_in=True, source=SourceOut())

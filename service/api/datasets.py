"""Routes of data sets: upload, list, describe."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile, status

from service.api.models import ColumnOut, DatasetOut
from service.api.studies import PROBLEMS
from service.datasets import BUILTIN, TableInfo, inspect, save_upload
from service.settings import Settings
from service.store import Store
from service.store.records import DatasetRecord


def router(store: Store, settings: Settings) -> APIRouter:
    """All routes under /v1/datasets."""
    routes = APIRouter(prefix="/v1/datasets", tags=["data sets"], responses=PROBLEMS)

    @routes.post("", status_code=status.HTTP_201_CREATED)
    def upload(
        response: Response,
        file: Annotated[UploadFile, File(description="CSV, Parquet, or NPZ with arrays x and y. Never pickles.")],
        name: Annotated[str | None, Form(max_length=200, description="For people; default: the file's name.")] = None,
    ) -> DatasetOut:
        """Store a data set; its id follows from its content, so the same file again is the same data set."""
        filename = file.filename or "data"
        stored = save_upload(file.file, filename, settings.datasets_dir, int(settings.max_upload_mb * 2**20))
        try:
            table = inspect(stored.path, stored.format)
        except Exception:
            stored.path.unlink(missing_ok=True)
            raise
        columns = tuple(asdict(column) for column in table.columns)
        record = DatasetRecord(
            id=stored.id,
            name=name or filename,
            filename=filename,
            format=stored.format,
            size=stored.size,
            rows=table.rows,
            shape=table.shape,
            columns=columns,
        )
        response.headers["Location"] = f"/v1/datasets/{stored.id}"
        return DatasetOut.of(store.datasets.add(record))

    @routes.get("")
    def list_datasets() -> list[DatasetOut]:
        """All data sets, built-in ones last."""
        uploaded = [DatasetOut.of(record) for record in store.datasets.list()]
        return uploaded + [_built_in(name, table) for name, table in BUILTIN.items()]

    @routes.get("/{dataset_id}")
    def get_dataset(dataset_id: str) -> DatasetOut:
        """One data set with its columns and their types."""
        if dataset_id in BUILTIN:
            return _built_in(dataset_id, BUILTIN[dataset_id])
        return DatasetOut.of(store.datasets.get(dataset_id))

    return routes


def _built_in(name: str, table: TableInfo) -> DatasetOut:
    columns = [ColumnOut.model_validate(column, from_attributes=True) for column in table.columns]
    return DatasetOut(id=name, name=name, format="built-in", size=0, rows=table.rows, columns=columns, built_in=True)

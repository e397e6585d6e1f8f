"""A study's trials as one table, for a spreadsheet, pandas or R: CSV, Parquet or Arrow (Feather)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from service.api.bodies import JsonRoute
from service.api.models import StudyId
from service.api.problems import answers
from service.store import Store
from service.store.records import TrialRecord

TableFormat = Literal["csv", "parquet", "arrow"]
_MOST_TRIALS = 1_000_000
_TYPES: dict[str, str] = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.file",
}
_TABLES: Any = {200: {"content": {kind.partition(";")[0]: {} for kind in _TYPES.values()}, "description": "A table"}}


def router(store: Store) -> APIRouter:
    """The table of a study's trials, under /v1/studies."""
    routes = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=JsonRoute)

    @routes.get("/{study_id}/export", response_class=Response, responses={**_TABLES, **answers(404, 422)})
    def export(study_id: StudyId, format_: Annotated[TableFormat, Query(alias="format")] = "csv") -> Response:
        """All trials, one a row: number, state, values of the objectives, epochs, times, a column for every parameter."""
        study = store.studies.get(study_id)
        trials, _ = store.history.page(study_id, limit=_MOST_TRIALS)
        content = table(trials, list(study.objectives), format_)
        headers = {"content-disposition": f'attachment; filename="regsearch-{study_id}.{format_}"'}
        return Response(content, media_type=_TYPES[format_], headers=headers)

    return routes


def table(trials: Sequence[TrialRecord], objectives: Sequence[str], form: TableFormat) -> bytes:
    """The table of trials; parameters that a trial does not have are missing.

    In CSV a text that a spreadsheet would take for a formula has an apostrophe before it (OWASP, "CSV Injection").
    """
    import pandas as pd

    first, *others = objectives
    rows = [
        {
            "number": each.number,
            "state": each.state,
            first: each.value,
            **{name: each.also.get(name, math.nan) for name in others},
            "epochs": each.epochs,
            "attempt": each.attempt,
            "ended_because": each.stop_reason,
            "started_at": each.started_at,
            "finished_at": each.finished_at,
            **{f"param_{name}": value for name, value in each.params.items()},
        }
        for each in trials
    ]
    columns = ["number", "state", *objectives, "epochs", "attempt", "ended_because", "started_at", "finished_at"]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    for name in frame.columns:
        kinds = {type(value) for value in frame[name].dropna()} if pd.api.types.is_object_dtype(frame[name]) else set()
        if len(kinds) > 1:  # choices of several types, of which a column of Parquet has one
            frame[name] = frame[name].map(lambda value: None if value is None else str(value))
    out = io.BytesIO()
    match form:
        case "csv":
            texts = frame.map(lambda value: _harmless(value) if isinstance(value, str) else value)
            out.write(texts.to_csv(index=False).encode())
        case "parquet":
            frame.to_parquet(out, index=False)
        case "arrow":
            frame.to_feather(out)
    return out.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text

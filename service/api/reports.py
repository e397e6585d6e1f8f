"""Routes of a finished study's report (HTML, Markdown, PDF) and of its trained model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from service.api.bodies import JsonRoute
from service.api.models import StudyId
from service.api.problems import answers
from service.api.zipping import opened_file, pieces_of, while_held
from service.errors import Conflict
from service.report import ExternalSource, Report, Source, build_external_report, build_report, to_html, to_markdown
from service.result import Reading, Result
from service.result.external import ExternalResult
from service.store import Store
from service.store.records import StudyRecord
from service.trained import TrainedModels

ReportFormat = Literal["html", "markdown", "pdf"]
ModelFormat = Literal["archive", "onnx"]

# The page loads nothing from elsewhere, and text from a study must never run as a script.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_MOST_TRIALS = 100_000
_MODELS: Any = {200: {"content": {"application/zip": {}, "application/octet-stream": {}}}}
_PAGES: Any = {200: {"content": {"text/html": {}, "text/markdown": {}, "application/pdf": {}}}}


def router(store: Store, models: TrainedModels) -> APIRouter:
    """Report and model, under /v1/studies."""
    routes = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=JsonRoute)

    @routes.get("/{study_id}/report", response_class=Response, responses={**_PAGES, **answers(404, 409, 422)})
    def get_report(study_id: StudyId, format_: Annotated[ReportFormat, Query(alias="format")] = "html") -> Response:
        """The report as one self-contained document. 409 until the study is finished."""
        report = _report(store, study_id)
        match format_:
            case "html":
                return Response(to_html(report), media_type="text/html", headers={"content-security-policy": _POLICY})
            case "markdown":
                return Response(to_markdown(report), media_type="text/markdown; charset=utf-8")
            case "pdf":
                from service.report.pdf import to_pdf

                return Response(to_pdf(report), media_type="application/pdf", headers=_attached(f"regsearch-{study_id}.pdf"))

    @routes.get("/{study_id}/model", response_class=Response, responses={**_MODELS, **answers(404, 409, 422)})
    def get_model(study_id: StudyId, format_: Annotated[ModelFormat, Query(alias="format")] = "archive") -> Response:
        """The winner's trained network.

        `archive`: a ZIP file of weights (safetensors), recipe and preprocessing (JSON) and a loader; `onnx`: one ONNX model,
        preprocessing included, which a worker makes of the archive afterwards: 409 with Retry-After until it is there.
        """
        model = result_of(store.studies.get(study_id)).model
        if model is None:
            raise Conflict(f"study {study_id} has no model: it was finished by an earlier version")
        if not model.available:
            raise Conflict(f"study {study_id} has no model: {model.reason}")
        match format_:
            case "archive":
                return _sent(models.archive(study_id), f"regsearch-{study_id}.zip", "application/zip")
            case "onnx":
                return _sent(models.onnx(study_id), f"regsearch-{study_id}.onnx", "application/octet-stream")

    return routes


def _sent(reading: AbstractContextManager[Path], name: str, media_type: str) -> Response:
    """A file as it is read, held until all of it is sent."""
    with ExitStack() as holding:
        file = opened_file(holding, reading)
        headers = {**_attached(name), "content-length": str(os.fstat(file.fileno()).st_size)}
        return StreamingResponse(while_held(holding.pop_all(), pieces_of(file)), media_type=media_type, headers=headers)


def _attached(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


def result_of(record: StudyRecord) -> Result:
    """The result of a study, also one stored by an earlier version.

    Raises:
        Conflict: The study has no result.
    """
    if record.external:
        raise Conflict(
            f"study {record.id} was run by a program (executor: external): its result is at /v1/studies/{record.id}/result"
        )
    return Result.model_validate(_stored(record))


def external_result_of(record: StudyRecord) -> ExternalResult:
    """The result of a study that a program ran.

    Raises:
        Conflict: The study has no result.
    """
    return ExternalResult.model_validate(_stored(record))


def _stored(record: StudyRecord) -> Mapping[str, Any]:
    if record.result is None:
        reason = f" ({record.reason})" if record.reason else ""
        raise Conflict(f"study {record.id} is {record.state}{reason}: it has no result")
    return record.result


def readings_of(store: Store, study_id: int) -> tuple[Reading, ...]:
    """The readings of the test part: when, by whom and what for."""
    return tuple(Reading.model_validate(each) for each in store.studies.test_accesses(study_id))


def _report(store: Store, study_id: int) -> Report:
    study, readings = store.studies.get(study_id), readings_of(store, study_id)
    result = external_result_of(study) if study.external else result_of(study)
    trials, _ = store.history.page(study_id, limit=_MOST_TRIALS)
    if isinstance(result, ExternalResult):
        return build_external_report(ExternalSource(study, result, trials, readings))
    return build_report(Source(study, result, trials, readings))

"""Pages for people: all studies at `/`, each one as it goes, and a form for a new one. They load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, get_args

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import AfterValidator

from service.api.access import WithCaller
from service.api.bodies import storable_text
from service.api.models import StudyId
from service.report.live import build_live_report, row_of
from service.report.page import file_of_templates, home_page, new_study_page, to_html
from service.spec import Space
from service.store import Store
from service.store.records import ENDED

Name = Annotated[str, Query(max_length=200), AfterValidator(storable_text)]
_ROWS = 50
_MOST_TRIALS = 5000
"""What a page of one study draws: the latest, so that it is soon there however long a search goes."""
PRESETS: tuple[str, ...] = get_args(Space.model_fields["preset"].annotation)


def router(store: Store) -> APIRouter:
    """The pages; not part of the API's description."""
    routes = APIRouter(include_in_schema=False)
    follow, new = file_of_templates("follow.js"), file_of_templates("new.js")

    @routes.get("/")
    def home(caller: WithCaller, name: Name = "", tag: Name = "") -> HTMLResponse:
        records, total = store.studies.list(seer=caller.owner, name=name or None, tags=[tag] if tag else [], limit=_ROWS)
        rows = [row_of(each) for each in records]
        return _page(home_page(rows, total=total, wanted=name, tag=tag, script=follow), follow)

    @routes.get("/studies/{study_id}")
    def study_page(study_id: StudyId) -> HTMLResponse:
        study = store.studies.get(study_id)
        trials, _ = store.history.page(study_id, offset=max(0, study.counts.all - _MOST_TRIALS), limit=_MOST_TRIALS)
        script = "" if study.state in ENDED else follow
        return _page(to_html(build_live_report(study, trials), script), script)

    @routes.get("/new")
    def new_study() -> HTMLResponse:
        return _page(new_study_page(PRESETS, new), new)

    return routes


def _page(text: str, script: str) -> HTMLResponse:
    """A page that runs its own ``script``, and nothing else."""
    return HTMLResponse(text, headers={"content-security-policy": policy_for(script), "cache-control": "no-store"})


def policy_for(script: str) -> str:
    """The content security policy of a page with one inline script. Reference: W3C, "Content Security Policy Level 3"."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )

"""Requests made up from the OpenAPI document: no server error, no answer that the document does not have, for any scope."""

from __future__ import annotations

import warnings
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok

from service.api.app import create_app
from service.settings import Settings
from service.store import Store
from tests.security.conftest import SCOPES, Owner

EXAMPLES = 3
"""Of each operation and scope."""
WANTED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
"""Left out are `ignored_auth`, as the test sends tokens of its own, and `positive_data_acceptance`: a data set that is not
there fits the schema, too."""


@pytest.fixture
def anywhere(store: Store, settings: Settings) -> FastAPI:
    """The service under any host name, as the generated requests have one of their own."""
    return create_app(store, settings.model_copy(update={"host": "0.0.0.0"}))


@pytest.mark.costly
@pytest.mark.parametrize("scope", SCOPES)
def test_generated_requests_are_answered_as_described(anywhere: FastAPI, ann: Owner, scope: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_asgi("/openapi.json", anywhere)
        checks = [CHECKS.get_one(name) for name in WANTED]
        sent = 0
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), "the document is sound"
            operation = found.ok()

            @hypothesis.settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            @hypothesis.seed(1)
            @hypothesis.given(case=operation.as_strategy())
            def send(case: Any) -> None:
                nonlocal sent
                if case.path.endswith("/events"):  # goes on until the study ends
                    return
                sent += 1
                answer = case.call(headers={**(case.headers or {}), **ann.headers(scope)})
                case.validate_response(answer, checks=checks)

            send()
    assert sent > 50

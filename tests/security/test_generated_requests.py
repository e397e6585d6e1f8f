"""Requests made up from the OpenAPI document: no server error, no answer that the document does not have, for any scope."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.result import Ok
from schemathesis.generation.meta import REQUEST_SHAPE_PROBES

from service.api.access import scopes_for
from service.api.app import create_app
from service.settings import Settings
from service.store import Store
from tests.security.conftest import SCOPES, Owner

EXAMPLES = 2
"""Of each operation, scope, and kind of data: what the document allows, and what it does not."""
VIOLATIONS, LOOKED_AT = 10, 200
"""Of each operation, one rule of the document broken by each: those sent, spread over the first that are found."""
STATEFUL = {"use_after_free", "ensure_resource_availability", "object_level_authorization"}
"""Checks of sequences of requests; what they are about is in `test_scopes`, for every route."""
MEANT = {
    "POST /v1/studies": "a spec has rules between its keys, and names data",
    "POST /v1/studies/dry-run": "the same",
    "GET /v1/compare": "ids, as text",
    "POST /v1/studies:restore": "the content of a file",
    "POST /v1/datasets": "the content of a file",
    "POST /v1/studies/{study_id}/trials:tell": "values that belong to a state",
    "POST /v1/login/token": "a code that was given out",
    "POST /v1/webhooks": "an address with a public host",
}
"""Operations that refuse what the document's schema can't tell: they may answer to generated data with 422."""
SENT_AGAIN = "idempotency-key"
"""Of another body it is refused, too, and generated keys are often equal."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@pytest.fixture
def anywhere(store: Store, settings: Settings) -> FastAPI:
    """The service under any host name, as the generated requests have one of their own; with all routes."""
    oidc = {"oidc_issuer": "https://id.example.org", "oidc_client_id": "regsearch", "oidc_groups": {"*": "read"}}
    more = {"host": "0.0.0.0", "public_url": "http://localhost", **oidc}
    return create_app(store, settings.model_copy(update=more))


class Sender:
    """Sends cases with a token of a scope, and checks the answers by all checks."""

    def __init__(self, owner: Owner, scope: str) -> None:
        self.sent = 0
        self._token = owner.headers(scope)
        self._own = {"study_id": owner.study, "dataset_id": owner.dataset, "webhook_id": owner.webhook}
        self._checks = [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name not in STATEFUL]
        self._guarded: set[str] = set()
        self._scope = scope

    def may(self, operation: Any) -> bool:
        """Whether the scope is one of those that the operation wants."""
        return self._scope in scopes_for(operation.method.upper(), operation.path)

    def own(self, operation: Any) -> dict[str, Any]:
        """The parameters of a path, so that it leads to what is there; what is deleted is another one."""
        named = re.findall(r"{(\w+)}", operation.path) if operation.method != "delete" else ()
        return {name: self._own[name] for name in named if name in self._own}

    def send(self, case: Any) -> None:
        """Send a case and check the answer."""
        self.sent += 1
        case.query.pop("wait", None)  # seconds until a change, which does not come
        if case.meta.generation.mode.is_positive:
            case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != SENT_AGAIN}
        answer = case.call(headers=self._token)
        label = case.operation.label
        left_out = {"positive_data_acceptance"} if label in MEANT else set()
        if label in self._guarded:  # the check of tokens sends three more requests, once of each operation
            left_out.add("ignored_auth")
        elif answer.status_code < 300:
            self._guarded.add(label)
        checks = [check for check in self._checks if check.__name__ not in left_out]
        case.validate_response(answer, checks=checks, headers=self._token)


def violations(schema: Any, operation: Any, own: dict[str, Any], most: int) -> Iterator[Any]:
    """Cases that break one rule each, a few by other methods and media types."""
    kind = [GenerationMode.NEGATIVE]
    config = schema.config.generation_for(operation=operation)
    made = schema.iter_coverage_cases(operation, generation_modes=kind, generation_config=config)
    found = [*itertools.islice(made, LOOKED_AT)]
    probes = [case for case in found if case.meta.phase.data.scenario in REQUEST_SHAPE_PROBES]
    others = [case for case in found if case.meta.phase.data.scenario not in REQUEST_SHAPE_PROBES]
    for case in [*probes[::4], *others[:: max(1, -(-len(others) // most))]][:most]:
        if not case.meta.is_negative_at(ParameterLocation.PATH):
            case.path_parameters.update(own)
        yield case


@pytest.mark.costly
@pytest.mark.parametrize("scope", SCOPES)
def test_generated_requests_are_answered_as_described(anywhere: FastAPI, ann: Owner, scope: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_asgi("/openapi.json", anywhere)
        schema.config.checks.positive_data_acceptance.expected_statuses.append("412")  # of another version, `If-Match`
        sender = Sender(ann, scope)
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), "the document is sound"
            operation = found.ok()
            if operation.path.endswith("/events"):  # goes on until the study ends
                continue
            own = sender.own(operation)
            for case in violations(schema, operation, own, VIOLATIONS if sender.may(operation) else EXAMPLES):
                sender.send(case)
            for mode in GenerationMode:
                if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
                    continue

                @hypothesis.settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    phases=[Phase.generate],
                )
                @hypothesis.seed(1)
                @hypothesis.given(case=operation.as_strategy(mode, path_parameters=own if mode.is_positive else None))
                def send(case: Any) -> None:
                    sender.send(case)

                send()
    assert sender.sent > 300


def test_other_methods_are_told_those_that_there_are(anywhere: FastAPI, ann: Owner) -> None:
    pages = {
        "/": {"get"},
        "/login/device": {"get", "post"},
        "/new": {"get"},
        "/login": {"get", "post"},
        "/logout": {"post"},
        "/docs": {"get"},
    }
    paths: dict[str, Any] = {**anywhere.openapi()["paths"], **pages}
    with TestClient(anywhere) as client:
        for path in paths:
            address = re.sub(r"{\w+}", "1", path)
            # `dry-run` is also what an id could be.
            alike = [each for each in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), address)]
            there = {method.upper() for each in alike for method in paths[each]}
            for method in {*METHODS} - there:
                answer = client.request(method, address, headers=ann.headers("admin"))
                told = {each.strip() for each in answer.headers.get("allow", "").split(",")}
                assert (answer.status_code, told) == (405, there), (method, path)

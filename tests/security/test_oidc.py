"""Promises about OpenID Connect: whom the issuer names gets in with the scope of their groups, and nobody else does."""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey
from playwright.sync_api import Browser, expect

from service.api import oidc
from service.api.app import create_app
from service.api.oidc import Issuer
from service.cli.supervisor import free_port
from service.settings import InvalidSettings, Settings
from service.store import Store
from tests.acceptance import conftest as shared
from tests.api import conftest as plain
from tests.api.conftest import Serving
from tests.issuer import CLIENT, SECRET, TestIssuer
from tests.security.conftest import bearer

browser = shared.browser
empty_database = plain.empty_database
store = plain.store
"""Fixtures, the store an empty one."""
GROUPS = {"staff": "submit", "chiefs": "admin", "guests": "read"}


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    running = TestIssuer()
    yield running
    running.stop()


@pytest.fixture
def settings(tmp_path: Path, issuer: TestIssuer) -> Settings:
    given = {"oidc_issuer": issuer.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "oidc_groups": GROUPS}
    more = {"auth": "tokens", "public_url": "http://localhost", "oidc_audience": CLIENT}
    return Settings.model_validate({"home": tmp_path / "home", **given, **more})


@pytest.fixture
def app(store: Store, settings: Settings) -> FastAPI:
    return create_app(store, settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False, follow_redirects=False) as opened:
        yield opened


def come_back(client: TestClient, **changed: str) -> Any:
    """Sign in at the issuer, as a browser does; what it brings back may be changed."""
    begun = client.get("/login/oidc", params={"next": "/v1/studies"})
    assert begun.status_code == 303, begun.text
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    back = httpx.get(begun.headers["location"]).headers["location"]
    assert back.startswith("http://localhost/login/callback?")
    brought = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    return client.get("/login/callback", params={**brought, **changed})


def test_whom_the_issuer_names_is_signed_in_and_out(client: TestClient, issuer: TestIssuer, store: Store) -> None:
    assert 'href="/login/oidc?next=/"' in client.get("/login").text
    answer = come_back(client)
    assert answer.status_code == 200, answer.text
    assert 'content="0; url=/v1/studies"' in answer.text, "a redirect would not send the cookie along"
    (kept,) = [each.lower() for each in answer.headers.get_list("set-cookie") if "regsearch_token" in each]
    assert "samesite=strict" in kept
    assert "httponly" in kept
    own = client.get("/v1/token").json()
    assert (own["owner"], own["scope"], own["name"]) == ("ann", "submit", "OpenID Connect")
    assert own["expires_at"] is not None
    out = client.post("/logout")
    assert f"{issuer.url}/logout?client_id=regsearch" in out.text.replace("&amp;", "&")
    assert client.get("/v1/token").status_code == 401
    assert store.tokens.list()[0].revoked_at is not None


@pytest.mark.parametrize(
    ("person", "scope"),
    [
        ({"groups": ["guests", "staff"]}, "submit"),
        ({"groups": "chiefs"}, "admin"),
        ({"groups": ["others"]}, None),
        ({"groups": None}, None),
        ({"groups": {"chiefs": 1}}, None),
        ({"sub": "x" * 101}, None),
        ({"sub": "a\0b"}, None),
    ],
)
def test_groups_are_scopes(client: TestClient, issuer: TestIssuer, person: dict[str, Any], scope: str | None) -> None:
    issuer.person |= person
    answer = come_back(client)
    assert answer.status_code == (403 if scope is None else 200)
    assert client.get("/v1/token").json().get("scope") == scope


def test_an_answer_that_was_not_asked_for_signs_nobody_in(client: TestClient, issuer: TestIssuer) -> None:
    assert come_back(client, state="another").status_code == 400
    assert come_back(client, code="another").status_code == 403
    assert come_back(client, error="access_denied").status_code == 403
    for wrong in ({"nonce": "another"}, {"nonce": None}, {"aud": "another"}, {"iss": "http://evil.example"}, {"exp": 1000}):
        issuer.spoilt = wrong
        assert come_back(client).status_code == 403, wrong
    assert client.get("/login/callback", params={"code": "x", "state": ""}).status_code == 400
    assert client.get("/v1/token").status_code == 401


def test_tokens_of_the_issuer_are_accepted_from_programs(client: TestClient, issuer: TestIssuer, store: Store) -> None:
    token = issuer.token()
    for _ in range(2):
        own = client.get("/v1/token", headers=bearer(token))
        assert (own.status_code, own.json().get("owner")) == (200, "ann"), own.text
    assert len(store.tokens.list()) == 1
    assert client.get("/v1/tokens", headers=bearer(token)).status_code == 403
    store.tokens.revoke(own.json()["id"])
    assert client.get("/v1/token", headers=bearer(token)).status_code == 401
    assert client.get("/v1/token", headers=bearer(issuer.token(aud=["other", CLIENT], azp=CLIENT))).status_code == 200


def _part(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def test_other_tokens_are_not(client: TestClient, issuer: TestIssuer) -> None:
    stranger = RSAKey.generate_key(2048)
    header, claims, _ = issuer.token().split(".")
    symmetric = f"{_part(json.dumps({'alg': 'HS256', 'kid': issuer.key.kid}).encode())}.{claims}"
    signature = hmac.digest(issuer.key.as_pem(private=False), symmetric.encode(), "sha256")
    unsigned = "eyJhbGciOiJub25lIn0"
    refused = {
        "of another key": issuer.token(stranger),
        "signed by the public key": f"{symmetric}.{_part(signature)}",
        "unsigned": f"{unsigned}.{claims}.",
        "without its signature": f"{header}.{claims}.",
        "expired": issuer.token(exp=int(time.time()) - 300),
        "that never expires": issuer.token(exp=None),
        "for another audience": issuer.token(aud="another"),
        "for nobody": issuer.token(aud=None),
        "of another client": issuer.token(aud=[CLIENT, "other"], azp="other"),
        "of another issuer": issuer.token(iss=f"{issuer.url}/"),
        "of nobody": issuer.token(sub=None),
        "of no group": issuer.token(groups=[]),
        "that is none": "a.b.c",
    }
    for name, token in refused.items():
        answer = client.get("/v1/token", headers=bearer(token))
        assert answer.status_code == 401, (name, answer.text)


def test_keys_may_change(client: TestClient, issuer: TestIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/v1/token", headers=bearer(issuer.token())).status_code == 200
    issuer.rotate()
    again = issuer.token(jti="second")
    assert client.get("/v1/token", headers=bearer(again)).status_code == 401, "it is asked again only after a while"
    monkeypatch.setattr(oidc, "_REFETCH_SECONDS", 0.0)
    assert client.get("/v1/token", headers=bearer(again)).status_code == 200


def test_an_issuer_that_is_away_is_told(client: TestClient, issuer: TestIssuer) -> None:
    token = issuer.token()
    issuer.stop()
    assert client.get("/login/oidc").status_code == 503
    assert client.get("/v1/token", headers=bearer(token)).status_code == 503
    assert client.get("/v1/token", headers=bearer("rs_unknown")).status_code == 401


def test_an_e_mail_address_must_be_verified(settings: Settings) -> None:
    issuer = Issuer(settings.model_copy(update={"oidc_owner_claim": "email"}))
    claims = {"email": "ann@example.org", "groups": ["staff"], "exp": 9e9}
    assert issuer.person({**claims, "email_verified": True}).owner == "ann@example.org"
    for doubtful in ({}, {"email_verified": False}, {"email_verified": "true"}):
        with pytest.raises(oidc.NotKnown, match="verified"):
            issuer.person({**claims, **doubtful})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auth": "off"}, "REGSEARCH_AUTH: must be tokens"),
        ({"oidc_client_id": None}, "REGSEARCH_OIDC_CLIENT_ID: is required"),
        ({"public_url": ""}, "REGSEARCH_PUBLIC_URL: is required"),
        ({"oidc_groups": {}}, "REGSEARCH_OIDC_GROUPS: is required"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        oidc.check_settings(settings.model_copy(update=changes))


@pytest.mark.parametrize("url", ["http://id.example.org", "id.example.org", "https://a:b@id.example.org", "ftp://x"])
def test_an_issuer_without_tls_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        Settings(oidc_issuer=url)


@pytest.mark.browser
def test_a_person_signs_in_with_a_browser(browser: Browser, issuer: TestIssuer, tmp_path: Path) -> None:
    port = free_port()
    given = {"issuer": issuer.url, "client_id": CLIENT, "client_secret": SECRET, "groups": '{"staff": "submit"}'}
    named = {f"oidc_{name}": value for name, value in given.items()}
    serving = Serving(tmp_path / "home", port, auth="tokens", public_url=f"http://127.0.0.1:{port}", **named)
    page = browser.new_page()
    try:
        page.goto(serving.url)
        page.get_by_role("link", name="Sign in with your account").click()
        expect(page).to_have_url(f"{serving.url}/")
        assert page.request.get(f"{serving.url}/v1/token").json()["owner"] == "ann"
        page.evaluate(
            "() => { const f = document.createElement('form'); f.method = 'post'; f.action = '/logout';"
            " document.body.append(f); f.submit() }"
        )
        expect(page).to_have_url(f"{serving.url}/login?next=/")
        assert issuer.signed_out[0]["client_id"] == CLIENT
    finally:
        page.close()
        serving.stop()

"""Promises about machines without a browser: a code that a person confirms signs one in, once, as that person."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from authlib.integrations.httpx_client import OAuth2Client
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, expect
from sqlalchemy import text

from service.api.app import create_app
from service.api.confirming import _CODES_A_MINUTE
from service.api.device import _BEGUN_A_MINUTE, GRANT
from service.cli.supervisor import free_port
from service.client.credentials import keep_token, token_for
from service.settings import Settings
from service.store import Store
from tests.api.conftest import Serving
from tests.issuer import CLIENT, SECRET, TestIssuer
from tests.security import test_oidc as shared
from tests.security.conftest import bearer

browser = shared.browser
empty_database = shared.empty_database
store = shared.store
issuer = shared.issuer
settings = shared.settings
app = shared.app
client = shared.client
"""Fixtures: a service with an issuer."""
HOURS = 3600.0
BEGIN, POLL, PAGE = "/v1/login/device", "/v1/login/token", "/login/device"


@pytest.fixture
def device(app: FastAPI) -> TestClient:
    """A machine that nobody has signed in."""
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def begin(machine: TestClient, /, **fields: str) -> dict[str, Any]:
    answer = machine.post(BEGIN, data={"client_id": "x", **fields})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    begun: dict[str, Any] = answer.json()
    assert begun["verification_uri_complete"] == f"http://localhost{PAGE}?code={begun['user_code']}"
    return begun


def poll(device: TestClient, begun: dict[str, Any]) -> dict[str, Any]:
    answer = device.post(POLL, data={"grant_type": GRANT, "device_code": begun["device_code"], "client_id": "x"})
    found: dict[str, Any] = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert answer.status_code == (400 if "error" in found else 200), found
    return found


def form_of(client: TestClient, code: str) -> dict[str, str]:
    """The fields of the page's form."""
    shown = client.get(PAGE, params={"code": code})
    assert shown.status_code == 200, shown.text
    assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    return dict(re.findall(r'name="(code|csrf)" value="([^"]*)"', shown.text))


def confirm(client: TestClient, code: str, what: str = "") -> None:
    assert client.post(f"{PAGE}{what}", data=form_of(client, code)).status_code == 200


def test_a_person_confirms_a_device_which_gets_one_token(client: TestClient, device: TestClient, store: Store) -> None:
    begun = begin(device, device="cluster <b>9</b>\x1b")
    with store.database.engine.begin() as connection:
        kept = str(connection.execute(text("SELECT * FROM rs_logins")).all())
        connection.execute(text("UPDATE rs_logins SET pause = 3600"))
    for secret in (begun["device_code"], begun["user_code"], begun["user_code"].replace("-", "")):
        assert secret not in kept
    assert [poll(device, begun)["error"] for _ in range(2)] == ["authorization_pending", "slow_down"]
    shared.come_back(client)
    assert "cluster &lt;b&gt;9&lt;/b&gt;" in client.get(PAGE, params={"code": begun["user_code"].lower()}).text
    confirm(client, begun["user_code"])
    assert client.get(PAGE, params={"code": begun["user_code"]}).status_code == 404, "a code is confirmed once"
    got = poll(device, begun)
    assert (got["token_type"], got["scope"], got["owner"]) == ("Bearer", "submit", "ann")
    assert 167 * HOURS < got["expires_in"] <= 168 * HOURS
    assert poll(device, begun)["error"] == "invalid_grant", "a code gives one token"
    own = device.get("/v1/token", headers=bearer(got["access_token"])).json()
    assert (own["owner"], own["name"]) == ("ann", "login of cluster <b>9</b>\ufffd")
    client.post("/logout")
    assert device.get("/v1/token", headers=bearer(got["access_token"])).status_code == 200
    entries = [each.entry for each in store.audit.page(owner="ann", under=None, offset=0, limit=9)[0]]
    assert [(each.route, each.object) for each in entries] == [(POLL, f"tokens/{own['id']}"), (PAGE, "login/device")]


def test_a_token_of_a_sign_in_is_ended_by_whoever_has_it_and_no_other(
    client: TestClient, device: TestClient, issuer: TestIssuer, store: Store
) -> None:
    shared.come_back(client)
    begun = begin(device)
    confirm(client, begun["user_code"])
    for secret in (poll(device, begun)["access_token"], issuer.token()):
        ended = device.delete("/v1/token", headers=bearer(secret))
        assert (ended.status_code, ended.json()["revoked_at"] is None) == (200, False)
        assert device.get("/v1/token", headers=bearer(secret)).status_code == 401
        assert device.delete("/v1/token", headers=bearer(secret)).status_code == 401
    _, given = store.tokens.create(owner="bob", scope="worker", name="of all programs")
    refused = device.delete("/v1/token", headers=bearer(given))
    assert (refused.status_code, "made by an admin" in refused.json()["detail"]) == (409, True)
    assert device.get("/v1/token", headers=bearer(given)).status_code == 200
    assert client.get("/v1/token").status_code == 200, "the browser has a token of its own"


def test_only_the_page_itself_confirms(client: TestClient, device: TestClient) -> None:
    code = begin(device)["user_code"]
    asked = client.get(PAGE, params={"code": code}, headers={"accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, f"/login?next={PAGE}%3Fcode%3D{code}")
    assert client.post(PAGE, data={"code": code}).status_code == 401
    shared.come_back(client)
    form, other = form_of(client, code), begin(device)["user_code"]
    evil = {"origin": "https://evil.example"}
    for what in ("", "/refuse"):
        assert client.post(f"{PAGE}{what}", data=form, headers=evil).status_code == 403
        for wrong in ({}, {"csrf": "x"}, {"csrf": form_of(client, other)["csrf"]}):
            assert client.post(f"{PAGE}{what}", data={"code": code, **wrong}).status_code == 403, wrong
    confirm(client, code)


def test_a_device_that_is_refused_or_late_gets_nothing(client: TestClient, device: TestClient, store: Store) -> None:
    shared.come_back(client)
    refused, late, left = begin(device), begin(device), begin(device)
    confirm(client, refused["user_code"], "/refuse")
    assert [poll(device, refused)["error"] for _ in range(2)] == ["access_denied", "invalid_grant"]
    confirm(client, left["user_code"])
    store.tokens.revoke(store.tokens.list()[0].id)
    assert poll(device, left)["error"] == "access_denied", "whoever has confirmed it is not signed in any more"
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE rs_logins SET expires_at = created_at"))
    assert poll(device, late)["error"] == "expired_token"
    shared.come_back(client)
    assert client.get(PAGE, params={"code": late["user_code"]}).status_code == 404
    assert poll(device, {"device_code": "guessed"})["error"] == "invalid_grant"
    assert len(store.tokens.list()) == 2


@pytest.mark.parametrize(
    ("asked", "group", "scope"), [("read", "staff", "read"), ("admin", "staff", None), ("", "guests", "read")]
)
def test_a_device_gets_no_more_than_the_person_has(
    client: TestClient, device: TestClient, issuer: TestIssuer, asked: str, group: str, scope: str | None
) -> None:
    issuer.person["groups"] = [group]
    shared.come_back(client)
    begun = begin(device, **({"scope": asked} if asked else {}))
    if scope is None:
        assert client.get(PAGE, params={"code": begun["user_code"]}).status_code == 403
    else:
        confirm(client, begun["user_code"])
        assert poll(device, begun)["scope"] == scope


def test_a_token_that_somebody_was_given_makes_none_that_lasts_longer(
    client: TestClient, device: TestClient, issuer: TestIssuer, store: Store
) -> None:
    for secret in (store.tokens.create(owner="bob", scope="read", days=1 / 24)[1], issuer.token()):
        client.get("/v1/token", headers=bearer(secret))
        client.post("/login", data={"token": secret})
        begun = begin(device)
        confirm(client, begun["user_code"])
        assert poll(device, begun)["expires_in"] <= HOURS


def test_codes_can_t_be_guessed_or_heaped_up(client: TestClient, device: TestClient) -> None:
    shared.come_back(client)
    tried = [client.get(PAGE, params={"code": "BCDF-GHJK"}).status_code for _ in range(_CODES_A_MINUTE + 3)]
    assert (tried[0], tried[-1]) == (404, 429)
    begun = [device.post(BEGIN, data={"client_id": "x"}) for _ in range(_BEGUN_A_MINUTE + 3)]
    assert (begun[0].status_code, begun[-1].status_code) == (200, 429)
    assert int(begun[-1].headers["retry-after"]) > 0


def test_without_an_issuer_there_is_no_such_way_in(store: Store, tmp_path: Path) -> None:
    plain = TestClient(create_app(store, Settings(home=tmp_path, auth="tokens")), base_url="http://localhost")
    assert plain.post(BEGIN).status_code == 404
    assert plain.post(POLL).status_code == 404


@pytest.mark.browser
def test_a_person_signs_in_a_command_line(
    browser: Browser, issuer: TestIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    given = {"issuer": issuer.url, "client_id": CLIENT, "client_secret": SECRET, "groups": '{"staff": "submit"}'}
    named = {f"oidc_{name}": value for name, value in given.items()}
    serving = Serving(tmp_path / "home", port, auth="tokens", public_url=f"http://127.0.0.1:{port}", **named)
    environment = {**serving.environment, "XDG_CONFIG_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "service.cli", "login", "--url", serving.url, "--scope", "read"]
    page = browser.new_page()
    try:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as signing:
            assert signing.stdout is not None
            place, code = (signing.stdout.readline().split()[-1] for _ in range(2))
            page.goto(place if place.startswith("http") else "")
            page.get_by_role("link", name="Sign in with your account").click()
            page.get_by_label("Code that the command line shows").fill(code.lower())
            page.get_by_role("button", name="Go on").click()
            expect(page.get_by_text("ann, scope read")).to_be_visible()
            page.get_by_role("button", name="Sign it in").click()
            expect(page.get_by_role("status")).to_contain_text("is signed in")
            assert signing.wait(60) == 0
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.delenv("REGSEARCH_TOKEN", raising=False)
        secret = token_for(serving.url)
        assert secret is not None
        assert serving.client.get("/healthz")

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            told = [sys.executable, "-m", "service.cli", *words, "--url", serving.url]
            return subprocess.run(told, env=environment, capture_output=True, check=False, timeout=120, text=True)

        assert run("list").returncode == 0
        assert re.search(r"is forgotten in .*, and token \d+ is revoked", run("logout").stdout)
        keep_token(serving.url, secret)
        assert run("list").returncode == 2
        assert "and was not valid any more" in run("logout").stdout
        assert token_for(serving.url) is None
        with OAuth2Client("another", trust_env=False) as standard:  # a client of somebody else's, as the RFC has them
            begun = standard.request(
                "POST", f"{serving.url}{BEGIN}", data={"client_id": "another"}, withhold_token=True
            ).json()
            page.goto(begun["verification_uri_complete"])
            page.get_by_role("button", name="Sign it in").press("Enter")
            expect(page.get_by_role("status")).to_contain_text("is signed in")
            got = standard.fetch_token(f"{serving.url}{POLL}", grant_type=GRANT, device_code=begun["device_code"])
            assert standard.get(f"{serving.url}/v1/token").json()["owner"] == got["owner"] == "ann"
    finally:
        page.close()
        serving.stop()

"""Promises about browsers: people sign in once, see what is theirs, and no page of another site acts for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect

from service.cli.supervisor import free_port
from service.client import Client
from service.store import Store, open_store
from tests.acceptance import conftest as shared
from tests.api.conftest import Serving
from tests.security.conftest import Owner, bearer

browser = shared.browser


def test_a_person_signs_in_with_a_token_and_out_again(client: TestClient, ann: Owner) -> None:
    wanted = client.get("/v1/studies", headers={"accept": "text/html"})
    assert (wanted.status_code, wanted.headers["location"]) == (303, "/login?next=/v1/studies")
    page = client.get(wanted.headers["location"])
    assert 'value="/v1/studies"' in page.text
    wrong = client.post("/login", data={"token": "rs_wrong", "next": "/"})
    assert wrong.status_code == 401
    assert "unknown, expired or revoked" in wrong.text
    signed = client.post("/login", data={"token": ann.tokens["read"], "next": "/v1/studies"})
    assert (signed.status_code, signed.headers["location"]) == (303, "/v1/studies")
    cookie = signed.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/v1/studies").json()["total"] == 3
    client.post("/logout")
    assert client.get("/v1/studies").status_code == 401


def test_over_tls_the_cookie_is_for_tls_only(client: TestClient, ann: Owner) -> None:
    answer = client.post("https://localhost/login", data={"token": ann.tokens["read"]})
    assert "secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/\r\nx: y"])
def test_signing_in_leads_to_no_other_site(client: TestClient, ann: Owner, following: str) -> None:
    answer = client.post("/login", data={"token": ann.tokens["read"], "next": following})
    assert answer.headers["location"] == "/"
    shown = client.get("/login", params={"next": '"><script>alert(1)</script>'})
    assert "<script" not in shown.text
    assert "script-src" not in shown.headers["content-security-policy"]
    assert "default-src 'none'" in shown.headers["content-security-policy"]


def test_a_form_of_another_site_signs_nobody_in(client: TestClient, ann: Owner) -> None:
    answer = client.post("/login", data={"token": ann.tokens["read"]}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_large_form_is_not_read(client: TestClient) -> None:
    assert client.post("/login", data={"token": "x" * 10_000}).status_code == 422


class Foreign(BaseHTTPRequestHandler):
    """A page of another site, which tries to change something at ``target`` in every way that a page has."""

    target = ""

    def do_GET(self) -> None:
        page = f"""<!doctype html><title>evil</title>
        <form id="form" method="post" action="{self.target}/v1/studies/1/cancel" target="frame"></form>
        <iframe name="frame"></iframe><img src="{self.target}/v1/studies/1/report">
        <script>
        const to = "{self.target}", json = {{"content-type": "application/json"}};
        document.getElementById("form").submit();
        const tries = [
          fetch(to + "/v1/studies/1/cancel", {{method: "POST", credentials: "include", mode: "no-cors"}}),
          fetch(to + "/v1/studies/1", {{method: "DELETE", credentials: "include", headers: json}}),
          fetch(to + "/v1/studies", {{method: "POST", credentials: "include", mode: "no-cors",
            body: JSON.stringify({{data: {{dataset: "wine"}}}})}}),
          fetch(to + "/v1/studies", {{credentials: "include"}}).then(r => r.text()).then(t => document.title = "read " + t),
        ];
        Promise.allSettled(tries).then(() => setTimeout(() => document.body.dataset.done = "yes", 500));
        </script>"""
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    running = Serving(tmp_path_factory.mktemp("protected") / "home", free_port(), auth="tokens")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def opened(serving: Serving) -> Iterator[Store]:
    store = open_store(f"sqlite:///{serving.home / 'regsearch.db'}")
    yield store
    store.close()


def sign_in(browser: Browser, serving: Serving, token: str, following: str = "/v1/studies") -> Page:
    """A browser of its own, in which a person has signed in."""
    page = browser.new_context().new_page()
    page.goto(f"{serving.url}{following}")
    expect(page).to_have_title("Sign in – regsearch")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url(f"{serving.url}{following}")
    return page


def submitted(serving: Serving, token: str, name: str) -> int:
    with Client(serving.url, token=token) as client:
        return client.study({"name": name, "data": {"dataset": "wine"}}).id


@pytest.mark.browser
def test_two_people_in_two_browsers_see_their_own_only(serving: Serving, opened: Store, browser: Browser) -> None:
    tokens = {name: opened.tokens.create(owner=name, scope="submit")[1] for name in ("ann", "bob")}
    numbers = {name: submitted(serving, token, f"secret of {name}") for name, token in tokens.items()}
    pages = {name: sign_in(browser, serving, token) for name, token in tokens.items()}
    for name, other in (("ann", "bob"), ("bob", "ann")):
        text = pages[name].content()
        assert f"secret of {name}" in text
        assert f"secret of {other}" not in text
        answer = pages[name].goto(f"{serving.url}/v1/studies/{numbers[other]}")
        assert answer is not None
        assert answer.status == 404
        dashboard = pages[name].goto(f"{serving.url}/dashboard")
        assert dashboard is not None
        assert dashboard.status == 403
        pages[name].context.close()


@pytest.mark.browser
def test_a_page_of_another_site_changes_and_reads_nothing(serving: Serving, opened: Store, browser: Browser) -> None:
    _, token = opened.tokens.create(owner="carol", scope="admin")
    number = submitted(serving, token, "of carol")
    before = {each.id: each.state for each in opened.studies.list(limit=500)[0]}
    page = sign_in(browser, serving, token)
    # Another name of the same machine is another site, as any other would be.
    Foreign.target = serving.url
    server = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.goto(f"http://localhost:{server.server_port}/")
        expect(page.locator("body")).to_have_attribute("data-done", "yes", timeout=30_000)
        assert page.title() == "evil"
    finally:
        server.shutdown()
        server.server_close()
    assert {each.id: each.state for each in opened.studies.list(limit=500)[0]} == before
    assert number in before
    page.context.close()


@pytest.mark.browser
def test_an_admin_signs_in_to_the_dashboard(serving: Serving, opened: Store, browser: Browser) -> None:
    _, token = opened.tokens.create(owner="dan", scope="admin")
    submitted(serving, token, "of dan")
    page = sign_in(browser, serving, token, "/dashboard")
    expect(page.get_by_text("of dan").first).to_be_visible(timeout=60_000)
    page.context.close()


def test_a_command_line_that_has_signed_in_is_let_in(serving: Serving, opened: Store, tmp_path: Any) -> None:
    _, token = opened.tokens.create(owner="erin", scope="submit")
    serving.environment["XDG_CONFIG_HOME"] = str(tmp_path)
    assert "a token is needed" in serving.run("list", "--url", serving.url).stderr
    wrong = serving.run("login", "--url", serving.url, "--token", "rs_wrong")
    assert wrong.returncode == 2
    done = serving.run("login", "--url", serving.url, "--token", token)
    assert "as erin, scope submit" in " ".join(done.stdout.split())
    assert serving.run("list", "--url", serving.url).returncode == 0
    done = serving.run("logout", "--url", serving.url)
    assert "but stays valid: token" in done.stdout
    assert "made by an admin" in done.stdout
    assert serving.client.get("/healthz")
    assert opened.tokens.find(token) is not None
    assert "No token of" in serving.run("logout", "--url", serving.url).stdout
    assert serving.run("list", "--url", serving.url).returncode == 2
    assert bearer(token)["authorization"] not in serving.log.read_text()

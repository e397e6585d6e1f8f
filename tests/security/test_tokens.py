"""Promises about tokens: needed everywhere, shown once, kept as digests, ended at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service.cli.local import check_protected
from service.cli.supervisor import CannotStart
from service.client.credentials import keep_token, token_for
from service.errors import NotFound
from service.settings import Settings
from service.store import Store
from tests.security.conftest import Owner, bearer


@pytest.mark.parametrize(
    "path", ["/v1/studies", "/v1/studies/1", "/v1/datasets", "/v1/tokens", "/metrics", "/", "/dashboard"]
)
@pytest.mark.parametrize(
    "headers",
    [{}, bearer("rs_guessed"), bearer(""), {"authorization": "Basic YTpi"}, {"cookie": "regsearch_token=rs_guessed"}],
)
def test_without_a_valid_token_nothing_is_told(client: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_state_of_the_service_and_its_description_are_open(client: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json", "/login"):
        assert client.get(path).status_code == 200, path


def test_a_token_is_kept_as_a_digest_only(client: TestClient, store: Store, ann: Owner) -> None:
    secrets = list(ann.tokens.values())
    with store.database.engine.connect() as connection:
        kept = str(connection.execute(text("SELECT * FROM rs_tokens")).all())
    listed = client.get("/v1/tokens", headers=ann.headers("admin")).text
    for secret in secrets:
        assert secret not in kept
        assert secret not in listed
        assert len(secret) > 40


def test_a_token_is_shown_once_when_it_is_made(client: TestClient, ann: Owner) -> None:
    given = {"owner": "eve", "scope": "read", "name": "laptop", "days": 1}
    made = client.post("/v1/tokens", json=given, headers=ann.headers("admin")).json()
    own = client.get("/v1/token", headers=bearer(made["token"])).json()
    assert (own["owner"], own["scope"], own["name"], "token" in own) == ("eve", "read", "laptop", False)


def test_a_revoked_token_is_refused_from_the_next_request_on(client: TestClient, ann: Owner) -> None:
    made = client.post("/v1/tokens", json={"owner": "eve", "scope": "read"}, headers=ann.headers("admin")).json()
    assert client.get("/v1/studies", headers=bearer(made["token"])).status_code == 200
    for _ in range(2):
        ended = client.delete(f"/v1/tokens/{made['id']}", headers=ann.headers("admin")).json()
        assert ended["revoked_at"] is not None
    assert client.get("/v1/studies", headers=bearer(made["token"])).status_code == 401


def test_an_expired_token_is_refused(client: TestClient, store: Store) -> None:
    record, secret = store.tokens.create(owner="eve", scope="read", days=1 / 86_400)
    assert record.expires_at is not None
    time.sleep(1.1)
    assert client.get("/v1/studies", headers=bearer(secret)).status_code == 401


def test_the_last_use_is_recorded(client: TestClient, store: Store, ann: Owner) -> None:
    _, secret = store.tokens.create(owner="eve", scope="read")
    assert store.tokens.list()[0].used_at is None
    client.get("/v1/studies", headers=bearer(secret))
    assert store.tokens.list()[0].used_at is not None


def test_an_unknown_token_can_t_be_revoked(store: Store) -> None:
    with pytest.raises(NotFound):
        store.tokens.revoke(99)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_a_service_that_others_reach_does_not_start_without_tokens(tmp_path: Path, host: str) -> None:
    with pytest.raises(CannotStart, match="regsearch token create"):
        check_protected(Settings(home=tmp_path, host=host))
    for auth in ("tokens", "unprotected"):
        check_protected(Settings(home=tmp_path, host=host, auth=auth))
    check_protected(Settings(home=tmp_path, host="127.0.0.1"))


def test_the_command_line_makes_lists_and_revokes_tokens(store: Store, settings: Settings) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"REGSEARCH_HOME": str(settings.home), "PATH": "", "COLUMNS": "200"}
        command = [sys.executable, "-m", "service.cli", "token", *arguments]
        root = Path(__file__).parents[2]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60, cwd=root)

    made = run("create", "--owner", "[b]eve", "--scope", "admin", "--days", "3")
    found = store.tokens.find(made.stdout.strip())
    assert found is not None
    assert (found.owner, found.scope) == ("[b]eve", "admin")
    assert "[b]eve" in run("list").stdout
    assert run("revoke", str(found.id)).returncode == 0
    assert store.tokens.find(made.stdout.strip()) is None
    wrong = run("create", "--owner", "eve", "--scope", "root")
    assert wrong.returncode != 0
    assert "root" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_client_finds_its_token_in_the_environment_or_the_file_of_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("REGSEARCH_TOKEN", raising=False)
    assert token_for("http://a.example") is None
    path = keep_token("http://a.example/", "rs_a")
    keep_token("http://b.example", "rs_b")
    assert path.stat().st_mode & 0o077 == 0
    assert (token_for("http://a.example"), token_for("http://b.example/")) == ("rs_a", "rs_b")
    keep_token("http://a.example", None)
    assert token_for("http://a.example") is None
    monkeypatch.setenv("REGSEARCH_TOKEN", "rs_c")
    assert token_for("http://b.example") == "rs_c"

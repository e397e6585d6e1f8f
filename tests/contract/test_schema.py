"""The schema: created once, upgraded from every released version, and reported where it is missing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from service.errors import DatabaseUnavailable
from service.store import Store, open_store
from service.store.engine import Database, normalize
from service.store.schema import (
    VERSION_TABLE,
    alembic_config,
    close_storage,
    expected_version,
    is_ours,
    optuna_storage,
    schema_version,
)
from service.store.tables import metadata
from tests.contract.conftest import a_spec
from tests.trained import models_of

A_STUDY = """INSERT INTO rs_studies (study_id, name, state, spec, owner, priority, max_retries, max_lost, metric, direction,
    budget_trials, waiting, running, complete, pruned, fail, leases, lost_leases, lost_in_a_row, asked, told, epochs,
    created_at)
    VALUES (:id, 'x', 'finished', '{}', 'ann', 0, 0, 0, 'rmse', 'minimize', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0)"""
A_MODEL = """INSERT INTO rs_model_archives (study_id, content, sha256, created_at, onnx)
    VALUES (:id, :content, :sha256, 1.0, :onnx)"""


def differences(connection: Connection) -> list[object]:
    options = {"version_table": VERSION_TABLE, "include_name": is_ours, "compare_type": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def test_migrations_create_the_declared_tables(store: Store) -> None:
    with store.database.engine.connect() as connection:
        assert differences(connection) == []


@pytest.mark.parametrize("missing", [(), ("served_at", "lost_leases")])
def test_the_first_schema_is_upgraded_to_the_current_one(empty_url: str, missing: tuple[str, ...]) -> None:
    old = Database(normalize(empty_url))
    close_storage(optuna_storage(old, create=True))
    with old.engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for column in missing:  # the first schema originally lacked them
            connection.execute(text(f"ALTER TABLE rs_studies DROP COLUMN {column}"))
    assert schema_version(old) == "0001"
    old.close()
    with pytest.raises(DatabaseUnavailable, match="schema version 0001, this program needs"):
        open_store(empty_url)
    opened = open_store(empty_url, create=True)
    with opened.database.engine.connect() as connection:
        assert differences(connection) == []
    study_id = opened.studies.submit(a_spec())
    lease = opened.leases.claim("worker", 60)
    assert lease is not None
    assert lease.study_id == study_id
    opened.close()


def test_a_missing_schema_is_reported(empty_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="schema version None"):
        open_store(empty_url)


def test_a_file_that_is_not_there_is_reported_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"there is no database file .*start the service once to make it"):
        open_store(f"sqlite:///{tmp_path / 'regsearch.db'}")
    assert list(tmp_path.iterdir()) == []
    open_store(f"sqlite:///{tmp_path / 'regsearch.db'}", create=True).close()
    open_store(f"sqlite:///{tmp_path / 'regsearch.db'}").close()


def test_creating_again_changes_nothing(database_url: str) -> None:
    opened = open_store(database_url, create=True)
    assert schema_version(opened.database) == expected_version()
    opened.ping()
    opened.close()


def test_many_processes_may_create_the_schema_at_once(empty_url: str) -> None:
    code = "import sys; from service.store import open_store; open_store(sys.argv[1], create=True).close()"
    processes = [subprocess.Popen([sys.executable, "-c", code, empty_url]) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    open_store(empty_url).close()


@pytest.mark.parametrize("url", ["mysql://host/name", "not a url"])
def test_urls_of_other_databases_are_refused(url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="sqlite"):
        open_store(url)


def test_models_in_the_database_are_not_lost_when_they_become_objects(empty_url: str, tmp_path: Path) -> None:
    old = Database(normalize(empty_url))
    close_storage(optuna_storage(old, create=True))
    with old.engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0021")
        for study_id, onnx in ((1, b"\0onnx"), (2, None)):
            content = bytes(range(256)) * study_id
            values = {"id": study_id, "content": content, "onnx": onnx, "sha256": hashlib.sha256(content).hexdigest()}
            connection.execute(text(A_STUDY), {"id": study_id})
            connection.execute(text(A_MODEL), values)
    old.close()
    with closing(open_store(empty_url, create=True)) as opened:
        assert opened.usage.of("ann").model_bytes == 3 * 256 + 5
        claimed = opened.archives.claim_onnx(60.0)
        assert claimed is not None
        assert claimed.study_id == 2, "the first one has an ONNX model"
        models = models_of(opened, tmp_path)
        assert models.move()
        for study_id in (1, 2):
            with models.archive(study_id) as path:
                assert path.read_bytes() == bytes(range(256)) * study_id
        with models.onnx(1) as path:
            assert path.read_bytes() == b"\0onnx"
        assert not models.move(), "the second was moved when it was read"
        opened.studies.delete(1)

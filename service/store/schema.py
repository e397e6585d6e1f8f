"""Creating and checking the schema: Optuna creates its own, Alembic ours, with a version table of our own.

The service creates the schema; workers only check it. A lock serializes processes that create it at the same time.
"""

from __future__ import annotations

import fcntl
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from optuna.storages import RDBStorage
from sqlalchemy import Connection, text

from service.errors import DatabaseUnavailable
from service.store.engine import Database, engine_options
from service.store.place import file_of

VERSION_TABLE = "regsearch_version"
_ADVISORY_LOCK = 0x7265_6773


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without an alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Whether Alembic is to consider a table: it ignores Optuna's."""
    return kind != "table" or (name or "").startswith("rs_")


def create_schema(database: Database) -> None:
    """Create the schema, or upgrade it from any earlier version."""
    with _one_at_a_time(database):
        if (path := file_of(database.url)) is not None:
            path.touch()  # nothing else makes a database
        close_storage(optuna_storage(database, create=True))
        if schema_version(database) == expected_version():
            return
        with database.engine.begin() as connection:
            command.upgrade(alembic_config(connection), "head")


def schema_version(database: Database, *, patience_seconds: float | None = None) -> str | None:
    """The version of the schema in the database; None if it has none."""

    def found(connection: Connection) -> str | None:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return context.get_current_revision()

    return database.read(found, patience_seconds=patience_seconds)


@lru_cache(maxsize=1)
def expected_version() -> str | None:
    """The version of the schema that this code needs."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def check_schema(database: Database, *, patience_seconds: float | None = None) -> None:
    """Check that the database responds and has the current schema.

    Raises:
        DatabaseUnavailable: It does not respond within ``patience_seconds``, or has another schema.
    """
    found, expected = schema_version(database, patience_seconds=patience_seconds), expected_version()
    if found != expected:
        raise DatabaseUnavailable(
            f"the database has schema version {found}, this program needs {expected}: start the service once to upgrade it"
        )


def optuna_storage(database: Database, *, create: bool = False) -> RDBStorage:
    """Optuna's stock storage on the same database, for the dashboard and for `optuna.load_study`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks arguments of this constructor experimental
        logging.getLogger("optuna.storages").setLevel(logging.WARNING)
        return RDBStorage(
            database.url.render_as_string(hide_password=False),
            engine_kwargs=engine_options(database.url, database.connections),
            skip_table_creation=not create,
        )


def close_storage(storage: RDBStorage) -> None:
    """Close a stock storage's own connections."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    if database.is_sqlite:
        path = Path(str(database.url.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    else:
        # The lock of a transaction, which a pooler knows; it is idle for as long as the others work.
        with database.engine.begin() as connection:
            for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {name} = 0")
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            yield

"""The migrations lead from every released schema to the one that the tables declare."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from service.store import Store
from service.store.schema import VERSION_TABLE, is_ours
from service.store.tables import metadata


def test_migrations_make_what_the_tables_declare(store: Store) -> None:
    with store.database.engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "include_name": is_ours, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []

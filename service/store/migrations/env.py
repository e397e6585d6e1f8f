"""Alembic's environment: migrates our tables on the connection that `service.store.schema` hands over."""

from alembic import context

from service.store.schema import VERSION_TABLE, is_ours
from service.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=is_ours,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

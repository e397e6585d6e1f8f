"""Room for changes in the pages of tables that change often, which PostgreSQL then need not index anew"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_TABLES = ("rs_studies", "rs_leases", "rs_workers")


def upgrade() -> None:
    """Apply to pages that are written from now on; a `VACUUM FULL` would apply it to the others."""
    if op.get_bind().dialect.name == "postgresql":
        for table in _TABLES:
            op.execute(f"ALTER TABLE {table} SET (fillfactor = 50)")


def downgrade() -> None:
    """Undo."""
    if op.get_bind().dialect.name == "postgresql":
        for table in _TABLES:
            op.execute(f"ALTER TABLE {table} RESET (fillfactor)")

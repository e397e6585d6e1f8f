"""The queue at scale: leases held are counted, and what a claim looks for has an index"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_OPEN = sa.text("state IN ('queued', 'running', 'finalizing') AND executor = 'workers'")
_TIMED = sa.text("state IN ('queued', 'running') AND budget_seconds IS NOT NULL AND started_at IS NOT NULL")
_HELD = sa.text("held > 0")


def upgrade() -> None:
    """Apply. Leases that are held now are counted."""
    op.add_column("rs_studies", sa.Column("held", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE rs_studies SET held = (SELECT count(*) FROM rs_leases WHERE rs_leases.study_id = rs_studies.study_id)"
    )
    op.execute("UPDATE rs_studies SET served_at = 0 WHERE served_at IS NULL")
    columns = ["priority", "owner", "held", "served_at", "study_id"]
    op.create_index("rs_studies_next", "rs_studies", columns, postgresql_where=_OPEN, sqlite_where=_OPEN)
    op.create_index("rs_studies_timed", "rs_studies", ["started_at"], postgresql_where=_TIMED, sqlite_where=_TIMED)
    op.create_index("rs_studies_held", "rs_studies", ["owner", "held"], postgresql_where=_HELD, sqlite_where=_HELD)


def downgrade() -> None:
    """Undo."""
    op.drop_index("rs_studies_held", "rs_studies")
    op.drop_index("rs_studies_timed", "rs_studies")
    op.drop_index("rs_studies_next", "rs_studies")
    op.drop_column("rs_studies", "held")

"""Trials that are stopped by hand"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("rs_trials", sa.Column("stop_asked_at", sa.Float(53)))


def downgrade() -> None:
    """Undo."""
    op.drop_column("rs_trials", "stop_asked_at")

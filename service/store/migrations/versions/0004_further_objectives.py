"""Values of further objectives"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("rs_trials", sa.Column("also", sa.Text(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("rs_trials", "also")

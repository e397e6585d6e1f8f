"""Networks on several devices: how many a study wants, and a worker has"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    for table in ("rs_studies", "rs_workers"):
        op.add_column(table, sa.Column("devices", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    """Undo."""
    for table in ("rs_studies", "rs_workers"):
        op.drop_column(table, "devices")

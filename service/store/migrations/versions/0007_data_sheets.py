"""Data sheets, and the memory of workers"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Data sets and studies that are there have none; a data set is described again when a study uses it."""
    op.add_column("rs_datasets", sa.Column("sheet", sa.Text()))
    op.add_column("rs_studies", sa.Column("advice", sa.Text()))
    op.add_column("rs_workers", sa.Column("memory", sa.BigInteger()))


def downgrade() -> None:
    """Undo."""
    op.drop_column("rs_workers", "memory")
    op.drop_column("rs_studies", "advice")
    op.drop_column("rs_datasets", "sheet")

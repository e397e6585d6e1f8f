"""Modules of the users' own"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "rs_modules",
        sa.Column("worker_id", sa.String(64), sa.ForeignKey("rs_workers.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(300), primary_key=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("usable", sa.Integer(), nullable=False),
    )
    op.add_column("rs_studies", sa.Column("module", sa.String(300)))


def downgrade() -> None:
    """Undo."""
    op.drop_column("rs_studies", "module")
    op.drop_table("rs_modules")

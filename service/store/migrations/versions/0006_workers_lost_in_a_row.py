"""Workers lost in a row"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Studies that are there get the default limit."""
    op.add_column("rs_studies", sa.Column("max_lost", sa.Integer(), nullable=False, server_default="6"))
    op.add_column("rs_studies", sa.Column("lost_in_a_row", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Undo."""
    op.drop_column("rs_studies", "lost_in_a_row")
    op.drop_column("rs_studies", "max_lost")

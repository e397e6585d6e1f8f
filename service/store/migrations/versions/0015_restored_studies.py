"""Studies restored from an archive"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("rs_studies", sa.Column("restored", sa.String(64)))
    op.create_index("rs_studies_restored_once", "rs_studies", ["owner", "restored"], unique=True)


def downgrade() -> None:
    """Undo."""
    op.drop_index("rs_studies_restored_once", "rs_studies")
    op.drop_column("rs_studies", "restored")

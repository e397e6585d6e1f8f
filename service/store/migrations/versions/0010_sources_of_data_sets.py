"""Where data sets are from, and their whole hashes"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Data sets that are there were files, under the name and the hash's beginning that they have."""
    op.add_column("rs_datasets", sa.Column("sha256", sa.String(64)))
    op.add_column("rs_dataset_owners", sa.Column("name", sa.String(200)))
    op.add_column("rs_dataset_owners", sa.Column("source", sa.Text()))


def downgrade() -> None:
    """Undo."""
    op.drop_column("rs_dataset_owners", "source")
    op.drop_column("rs_dataset_owners", "name")
    op.drop_column("rs_datasets", "sha256")

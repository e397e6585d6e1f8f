"""Tokens, and the owners of data sets"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Data sets that are there belong to the owner that studies have without tokens."""
    op.create_table(
        "rs_tokens",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("used_at", sa.Float(53)),
        sa.Column("revoked_at", sa.Float(53)),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rs_dataset_owners",
        sa.Column("dataset_id", sa.String(64), sa.ForeignKey("rs_datasets.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("owner", sa.String(100), primary_key=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    op.execute(
        "INSERT INTO rs_dataset_owners (dataset_id, owner, created_at) SELECT id, 'default', created_at FROM rs_datasets"
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("rs_dataset_owners")
    op.drop_table("rs_tokens")

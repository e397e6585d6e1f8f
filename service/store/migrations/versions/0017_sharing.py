"""Studies and data sets that are shared"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "rs_study_shares",
        sa.Column(
            "study_id",
            sa.Integer(),
            sa.ForeignKey("rs_studies.study_id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("owner", sa.String(100), primary_key=True),
    )
    op.create_index("rs_study_shares_owner", "rs_study_shares", ["owner"])
    op.create_table(
        "rs_dataset_shares",
        sa.Column("dataset_id", sa.String(64), primary_key=True),
        sa.Column("giver", sa.String(100), primary_key=True),
        sa.Column("owner", sa.String(100), primary_key=True),
        sa.ForeignKeyConstraint(
            ["dataset_id", "giver"], ["rs_dataset_owners.dataset_id", "rs_dataset_owners.owner"], ondelete="CASCADE"
        ),
    )
    op.create_index("rs_dataset_shares_owner", "rs_dataset_shares", ["owner"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("rs_dataset_shares")
    op.drop_table("rs_study_shares")

"""Trials that are stopped by hand, what people change in studies, and tags"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("rs_trials", sa.Column("stop_asked_at", sa.Float(53)))
    op.add_column("rs_studies", sa.Column("revision", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "rs_changes",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("rs_studies.study_id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("owner", sa.String(100)),
        sa.Column("token_id", sa.Integer()),
        sa.Column("what", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rs_tags",
        sa.Column(
            "study_id",
            sa.Integer(),
            sa.ForeignKey("rs_studies.study_id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("tag", sa.String(50), primary_key=True),
    )
    op.create_index("rs_tags_tag", "rs_tags", ["tag"])
    op.create_index("ix_rs_changes_study_id", "rs_changes", ["study_id"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("rs_tags")
    op.drop_table("rs_changes")
    op.drop_column("rs_studies", "revision")
    op.drop_column("rs_trials", "stop_asked_at")

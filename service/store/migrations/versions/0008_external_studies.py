"""Studies whose trials a program runs, and its runs after the search"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Workers run the studies that are there."""
    op.add_column("rs_studies", sa.Column("executor", sa.String(16), nullable=False, server_default="workers"))
    op.add_column("rs_leases", sa.Column("seconds", sa.Float()))
    op.create_table(
        "rs_finals",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("study_id", sa.Integer(), sa.ForeignKey("rs_studies.study_id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("trial", sa.Integer()),
        sa.Column("seed_index", sa.Integer(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("lease_token", sa.Integer()),
        sa.Column("ask_key", sa.String(32)),
        sa.Column("told_by", sa.String(64)),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(53)),
        sa.Column("test", sa.Float(53)),
        sa.Column("reason", sa.Text()),
        sa.UniqueConstraint("study_id", "number", name="rs_finals_are_dense"),
    )
    op.create_index("ix_rs_finals_lease_token", "rs_finals", ["lease_token"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("rs_finals")
    op.drop_column("rs_leases", "seconds")
    op.drop_column("rs_studies", "executor")

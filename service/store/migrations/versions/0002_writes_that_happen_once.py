"""Writes that happen once, and who told a trial"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "rs_writes",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index(op.f("ix_rs_writes_at"), "rs_writes", ["at"], unique=False)
    op.add_column("rs_trials", sa.Column("told_by", sa.Integer(), nullable=True))
    # Revision 0001 was in use before it had these columns, so they may be there or not.
    found = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("rs_studies")}
    if "served_at" not in found:
        op.add_column("rs_studies", sa.Column("served_at", sa.Float(precision=53), nullable=True))
    if "lost_leases" not in found:
        none_yet = sa.Column("lost_leases", sa.Integer(), nullable=False, server_default="0")
        op.add_column("rs_studies", none_yet)


def downgrade() -> None:
    """Undo."""
    op.drop_column("rs_trials", "told_by")
    op.drop_index(op.f("ix_rs_writes_at"), table_name="rs_writes")
    op.drop_table("rs_writes")

"""Who has changed what"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "rs_audit",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("owner", sa.String(100)),
        sa.Column("token_id", sa.Integer()),
        sa.Column("method", sa.String(8), nullable=False),
        sa.Column("route", sa.String(200), nullable=False),
        sa.Column("object", sa.String(200), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(32), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("rs_audit_owner", "rs_audit", ["owner", "id"])
    op.create_index("rs_audit_object", "rs_audit", ["object", "id"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("rs_audit")

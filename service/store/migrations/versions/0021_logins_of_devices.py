"""Sign-ins of command lines, which a person confirms in a browser"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "rs_logins",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("device_digest", sa.String(64), nullable=False, unique=True),
        sa.Column("user_digest", sa.String(64), nullable=False, unique=True),
        sa.Column("device", sa.String(100), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(16)),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False, index=True),
        sa.Column("polled_at", sa.Float(53)),
        sa.Column("pause", sa.Float(53), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("token_id", sa.Integer(), sa.ForeignKey("rs_tokens.id", ondelete="CASCADE")),
        sa.Column("token_expires_at", sa.Float(53)),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("rs_logins")

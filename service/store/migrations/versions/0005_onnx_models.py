"""ONNX models, made of archives"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("rs_model_archives", sa.Column("onnx", sa.LargeBinary(), nullable=True))
    op.add_column("rs_model_archives", sa.Column("onnx_reason", sa.Text(), nullable=True))
    op.add_column("rs_model_archives", sa.Column("onnx_begun_at", sa.Float(precision=53), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("rs_model_archives", "onnx_begun_at")
    op.drop_column("rs_model_archives", "onnx_reason")
    op.drop_column("rs_model_archives", "onnx")

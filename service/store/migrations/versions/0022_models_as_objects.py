"""Trained models as objects

The contents stay where they are, in the table that gets another name, and are moved to the store of objects afterwards, one
at a time (`service.trained`). A migration is the wrong place for that: it knows the database only, not the operator's home
or store; it is one transaction, which can't undo what it has written elsewhere; and nothing starts until it is over, which
with a store that does not answer, or gigabytes of models, would be late or never. This one reads and copies no content.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.rename_table("rs_model_archives", "rs_model_blobs")
    op.create_table(
        "rs_model_archives",
        sa.Column("study_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("object", sa.String(120)),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("onnx_object", sa.String(120)),
        sa.Column("onnx_sha256", sa.String(64)),
        sa.Column("onnx_size", sa.BigInteger()),
        sa.Column("onnx_reason", sa.Text()),
        sa.Column("onnx_begun_at", sa.Float(53)),
        sa.ForeignKeyConstraint(["study_id"], ["rs_studies.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id"),
    )
    op.execute(
        "INSERT INTO rs_model_archives (study_id, sha256, size, created_at, onnx_size, onnx_reason, onnx_begun_at) "
        "SELECT study_id, sha256, length(content), created_at, length(onnx), onnx_reason, onnx_begun_at FROM rs_model_blobs"
    )
    op.create_table(
        "rs_strays",
        sa.Column("name", sa.String(120), primary_key=True),
        sa.Column("condemned", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    """Undo; models that were moved stay among the objects, where the earlier version does not look for them."""
    op.drop_table("rs_strays")
    op.drop_table("rs_model_archives")
    op.rename_table("rs_model_blobs", "rs_model_archives")

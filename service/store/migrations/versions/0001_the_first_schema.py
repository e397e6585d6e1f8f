"""The first schema"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "rs_datasets",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("filename", sa.String(length=300), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("columns", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "rs_studies",
        sa.Column("study_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=220), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(length=100), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_parallel", sa.Integer(), nullable=True),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("max_failed", sa.Integer(), nullable=True),
        sa.Column("dataset_id", sa.String(length=64), nullable=True),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("direction", sa.String(length=16), nullable=False),
        sa.Column("budget_trials", sa.Integer(), nullable=False),
        sa.Column("budget_seconds", sa.Float(), nullable=True),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("complete", sa.Integer(), nullable=False),
        sa.Column("pruned", sa.Integer(), nullable=False),
        sa.Column("fail", sa.Integer(), nullable=False),
        sa.Column("leases", sa.Integer(), nullable=False),
        sa.Column("lost_leases", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("best_number", sa.Integer(), nullable=True),
        sa.Column("best_value", sa.Float(precision=53), nullable=True),
        sa.Column("best_step", sa.Integer(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("started_at", sa.Float(precision=53), nullable=True),
        sa.Column("served_at", sa.Float(precision=53), nullable=True),
        sa.Column("finished_at", sa.Float(precision=53), nullable=True),
        sa.CheckConstraint("asked <= budget_trials", name="rs_budget_is_exact"),
        sa.CheckConstraint("asked = waiting + running + complete + pruned + fail", name="rs_counts_add_up"),
        sa.PrimaryKeyConstraint("study_id"),
    )
    with op.batch_alter_table("rs_studies", schema=None) as batch_op:
        batch_op.create_index("rs_studies_queue", ["state", "priority"], unique=False)

    op.create_table(
        "rs_workers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=100), nullable=False),
        sa.Column("started_at", sa.Float(precision=53), nullable=False),
        sa.Column("seen_at", sa.Float(precision=53), nullable=False),
        sa.Column("left_at", sa.Float(precision=53), nullable=True),
        sa.Column("stats", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "rs_leases",
        sa.Column("token", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(length=64), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["rs_studies.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("rs_leases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rs_leases_study_id"), ["study_id"], unique=False)

    op.create_table(
        "rs_test_accesses",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["rs_studies.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("rs_test_accesses", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rs_test_accesses_study_id"), ["study_id"], unique=False)

    op.create_table(
        "rs_trials",
        sa.Column("trial_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("ask_key", sa.String(length=32), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("best_step", sa.Integer(), nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("curve", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["rs_studies.study_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id"),
        sa.UniqueConstraint("study_id", "number", name="rs_numbers_are_dense"),
        sa.UniqueConstraint("study_id", "seq", name="rs_told_once"),
    )
    with op.batch_alter_table("rs_trials", schema=None) as batch_op:
        batch_op.create_index("rs_trials_lease", ["lease_token"], unique=False)


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("rs_trials", schema=None) as batch_op:
        batch_op.drop_index("rs_trials_lease")

    op.drop_table("rs_trials")
    with op.batch_alter_table("rs_test_accesses", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rs_test_accesses_study_id"))

    op.drop_table("rs_test_accesses")
    with op.batch_alter_table("rs_leases", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rs_leases_study_id"))

    op.drop_table("rs_leases")
    op.drop_table("rs_workers")
    with op.batch_alter_table("rs_studies", schema=None) as batch_op:
        batch_op.drop_index("rs_studies_queue")

    op.drop_table("rs_studies")
    op.drop_table("rs_datasets")

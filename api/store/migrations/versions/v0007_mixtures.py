"""Mixtures in the queue, and jobs that need several traces."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    _kinds("'plan', 'front', 'replan', 'simulation', 'mixture'")
    op.create_table(
        "plan_traces",
        sa.Column("plan_id", sa.String(40), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("trace_seq", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name="fk_plan_traces_plan_id_plans", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["trace_seq"], ["traces.seq"], name="fk_plan_traces_trace_seq_traces", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_plan_traces_trace_seq", "plan_traces", ["trace_seq"])


def downgrade() -> None:
    """Take back; mixtures are lost."""
    op.execute("DELETE FROM plans WHERE kind = 'mixture'")
    op.drop_table("plan_traces")
    _kinds("'plan', 'front', 'replan', 'simulation'")


def _kinds(kinds: str) -> None:
    with op.batch_alter_table("plans", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_constraint(op.f("ck_plans_kind"), type_="check")
        table.create_check_constraint("kind", f"kind IN ({kinds})")

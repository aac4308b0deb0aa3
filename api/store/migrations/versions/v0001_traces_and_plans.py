"""Traces, plans, their documents, idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "traces",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.UniqueConstraint("id", name="uq_traces_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "plans",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column(
            "trace_id",
            sa.String(80),
            sa.ForeignKey("traces.id", name="fk_plans_trace_id_traces", ondelete="SET NULL"),
        ),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Float()),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float()),
        sa.Column("finished_at", sa.Float()),
        sa.Column("elapsed_s", sa.Float()),
        sa.Column("score", sa.Float()),
        sa.Column("bound", sa.Float()),
        sa.Column("termination", sa.JSON()),
        sa.Column("error", sa.JSON()),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.UniqueConstraint("id", name="uq_plans_id"),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="ck_plans_status"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_plans_trace_id", "plans", ["trace_id"])
    op.create_index("ix_plans_status_seq", "plans", ["status", "seq"])
    op.create_table(
        "plan_documents",
        sa.Column(
            "plan_id",
            sa.String(40),
            sa.ForeignKey("plans.id", name="fk_plan_documents_plan_id_plans", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("start", sa.Text()),
        sa.Column("plan", sa.Text()),
        sa.Column("summary", sa.Text()),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column(
            "plan_id",
            sa.String(40),
            sa.ForeignKey("plans.id", name="fk_idempotency_keys_plan_id_plans", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("created_at", sa.Float(), nullable=False),
    )
    op.create_index("ix_idempotency_keys_plan_id", "idempotency_keys", ["plan_id"])
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    """Take back."""
    for table in ("idempotency_keys", "plan_documents", "plans", "traces"):
        op.drop_table(table)

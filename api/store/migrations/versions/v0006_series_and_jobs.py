"""Series of traces in time; re-plans and simulations of policies in the queue; what a webhook is to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "series",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(80), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("alpha", sa.Float(), nullable=False),
        sa.Column("axes", sa.JSON(none_as_null=True)),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.UniqueConstraint("id", name="uq_series_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_series_tenant_seq", "series", ["tenant", "seq"])
    op.create_index("ix_series_updated_at", "series", ["updated_at"])
    op.create_table(
        "series_windows",
        sa.Column("series_seq", sa.Integer(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("trace_seq", sa.Integer(), nullable=False),
        sa.Column("time", sa.Float()),
        sa.Column("added_at", sa.Float(), nullable=False),
        sa.Column("load", sa.LargeBinary(), nullable=False),
        sa.Column("drift", sa.JSON(none_as_null=True)),
        sa.ForeignKeyConstraint(
            ["series_seq"], ["series.seq"], name="fk_series_windows_series_seq_series", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["trace_seq"], ["traces.seq"], name="fk_series_windows_trace_seq_traces"),
    )
    op.create_index("ix_series_windows_trace_seq", "series_windows", ["trace_seq"])
    op.create_table(
        "webhooks",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.UniqueConstraint("id", name="uq_webhooks_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhooks_due_at", "webhooks", ["due_at"])
    with op.batch_alter_table("plans", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.add_column(sa.Column("series_seq", sa.Integer()))
        table.add_column(sa.Column("series_length", sa.Integer()))
        table.add_column(sa.Column("replaces", sa.String(40)))
        table.create_foreign_key("fk_plans_series_seq_series", "series", ["series_seq"], ["seq"], ondelete="SET NULL")
        table.drop_constraint(op.f("ck_plans_kind"), type_="check")
        table.create_check_constraint("kind", "kind IN ('plan', 'front', 'replan', 'simulation')")
        table.create_index("ix_plans_series_seq", ["series_seq"])


def downgrade() -> None:
    """Take back; what was queued of the new kinds is lost."""
    op.execute("DELETE FROM plans WHERE kind IN ('replan', 'simulation')")
    with op.batch_alter_table("plans", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_index("ix_plans_series_seq")
        table.drop_constraint(op.f("ck_plans_kind"), type_="check")
        table.create_check_constraint("kind", "kind IN ('plan', 'front')")
        table.drop_constraint("fk_plans_series_seq_series", type_="foreignkey")
        for name in ("replaces", "series_length", "series_seq"):
            table.drop_column(name)
    for name in ("webhooks", "series_windows", "series"):
        op.drop_table(name)

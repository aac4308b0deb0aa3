"""How long a plan is expected to take; what the store is known by, and what it knows of the clock."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("plans", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.add_column(sa.Column("expected_s", sa.Float()))
        table.create_index("ix_plans_finished_at", ["finished_at"])
    op.create_table(
        "service",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.Float()),
        sa.Column("hold_s", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("service")
    with op.batch_alter_table("plans", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_index("ix_plans_finished_at")
        table.drop_column("expected_s")

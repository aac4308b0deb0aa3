"""The attempt that a worker has begun: a cluster that loses a worker hands its task to another by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("plans", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.add_column(sa.Column("begun", sa.Integer(), nullable=False, server_default=sa.text("0")))
    with op.batch_alter_table("plans", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.alter_column("begun", server_default=None, existing_type=sa.Integer(), existing_nullable=False)

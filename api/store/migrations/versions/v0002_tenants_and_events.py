"""Tenants, tags, events, fronts, topologies, uploads in parts, API keys, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LOCAL = sa.text("'local'")  # whom everything belonged to so far
NO_TAGS = sa.text("'[]'")


def upgrade() -> None:
    """Apply."""
    _traces()
    _plans()
    _idempotency_keys()
    _new_tables()


def _traces() -> None:
    with op.batch_alter_table("traces", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.add_column(sa.Column("tenant", sa.String(80), nullable=False, server_default=LOCAL))
        table.add_column(sa.Column("tags", sa.JSON(), nullable=False, server_default=NO_TAGS))
        table.alter_column("bytes", type_=sa.BigInteger(), existing_type=sa.Integer(), existing_nullable=False)
    with op.batch_alter_table("traces", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.alter_column("tenant", server_default=None, existing_type=sa.String(80), existing_nullable=False)
        table.alter_column("tags", server_default=None, existing_type=sa.JSON(), existing_nullable=False)


def _plans() -> None:
    kwargs = {"sqlite_autoincrement": True}
    with op.batch_alter_table("plans", table_kwargs=kwargs) as table:
        table.add_column(sa.Column("tenant", sa.String(80), nullable=False, server_default=LOCAL))
        table.add_column(sa.Column("kind", sa.String(16), nullable=False, server_default=sa.text("'plan'")))
        table.add_column(sa.Column("tags", sa.JSON(), nullable=False, server_default=NO_TAGS))
        table.add_column(sa.Column("claimed_by", sa.String(80)))
        table.add_column(sa.Column("trace_seq", sa.Integer()))
    op.execute("UPDATE plans SET trace_seq = (SELECT seq FROM traces WHERE traces.id = plans.trace_id)")
    op.drop_index("ix_plans_trace_id", "plans")
    with op.batch_alter_table("plans", table_kwargs=kwargs) as table:
        table.drop_constraint("fk_plans_trace_id_traces", type_="foreignkey")
        table.drop_column("trace_id")
        for name, kind in (("tenant", sa.String(80)), ("kind", sa.String(16)), ("tags", sa.JSON())):
            table.alter_column(name, server_default=None, existing_type=kind, existing_nullable=False)
        table.create_check_constraint("kind", "kind IN ('plan', 'front')")
        table.create_index("ix_plans_trace_seq", ["trace_seq"])
        table.create_index("ix_plans_tenant_seq", ["tenant", "seq"])
    # Only now is the trace's digest free of references: it is unique within a tenant from here on.
    with op.batch_alter_table("traces", table_kwargs=kwargs) as table:
        table.drop_constraint("uq_traces_id", type_="unique")
        table.create_unique_constraint("uq_traces_tenant_id", ["tenant", "id"])
        table.create_index("ix_traces_id", ["id"])
    with op.batch_alter_table("plans", table_kwargs=kwargs) as table:
        table.create_foreign_key("fk_plans_trace_seq_traces", "traces", ["trace_seq"], ["seq"], ondelete="SET NULL")


def _idempotency_keys() -> None:
    # They are remembered for hours only; the new ones know their tenant.
    op.drop_table("idempotency_keys")
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant", sa.String(80), primary_key=True),
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


def _new_tables() -> None:
    op.create_table(
        "plan_events",
        sa.Column(
            "plan_id",
            sa.String(40),
            sa.ForeignKey("plans.id", name="fk_plan_events_plan_id_plans", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("revision", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
    )
    op.create_table(
        "topologies",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(80), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.UniqueConstraint("id", name="uq_topologies_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_topologies_tenant_seq", "topologies", ["tenant", "seq"])
    op.create_table(
        "uploads",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(80), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("hints", sa.JSON(), nullable=False),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.UniqueConstraint("id", name="uq_uploads_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    op.create_table(
        "api_keys",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(80), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float()),
        sa.Column("revoked_at", sa.Float()),
        sa.Column("last_used_at", sa.Float()),
        sa.UniqueConstraint("id", name="uq_api_keys_id"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_api_keys_tenant", "api_keys", ["tenant"])
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("tenant", sa.String(80)),
        sa.Column("actor", sa.String(200)),
        sa.Column("client", sa.String(80)),
        sa.Column("request_id", sa.String(128)),
        sa.Column("action", sa.String(200), nullable=False),
        sa.Column("target", sa.String(400)),
        sa.Column("status", sa.Integer(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])


def downgrade() -> None:
    """Tenants can't be taken back: their traces may be the same bytes."""
    raise NotImplementedError("Restore the backup that was made before the upgrade.")

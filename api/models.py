"""The tables. `api.migrations` creates them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

__all__ = ["STATUSES", "idempotency_keys", "metadata", "plan_documents", "plans", "traces"]

STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Times are seconds since the epoch, UTC. `seq` is the order of creation, which lists page through.

traces = Table(
    "traces",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(80), nullable=False, unique=True),
    Column("name", String(200)),
    Column("created_at", Float, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("facts", JSON, nullable=False),  # what a full read found out; see api.inspection.Facts
    sqlite_autoincrement=True,
)

plans = Table(
    "plans",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("name", String(200)),
    # The request keeps the id of a trace that was deleted after the plan was made.
    Column("trace_id", ForeignKey("traces.id", ondelete="SET NULL"), index=True),
    Column("request", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),  # rises with every visible change
    Column("attempt", Integer, nullable=False),  # rises with every claim; writes of older attempts are refused
    Column("crashes", Integer, nullable=False),  # attempts whose worker died
    Column("lease_until", Float),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("elapsed_s", Float),
    Column("score", Float),
    Column("bound", Float),
    Column("termination", JSON(none_as_null=True)),
    Column("error", JSON(none_as_null=True)),  # a problem document
    Column("warnings", JSON, nullable=False),
    CheckConstraint(f"status IN {STATUSES}", name="status"),
    Index("ix_plans_status_seq", "status", "seq"),
    sqlite_autoincrement=True,
)

# Large and seldom read, so apart from what every poll reads.
plan_documents = Table(
    "plan_documents",
    metadata,
    Column("plan_id", ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("start", Text),  # plan file to start from, as it was when the plan was asked for
    Column("plan", Text),  # plan file of the best plan so far
    Column("summary", Text),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("body_hash", String(64), nullable=False),
    Column("plan_id", ForeignKey("plans.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Float, nullable=False, index=True),
)

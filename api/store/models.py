"""The tables. `api.store.migrations` creates them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "KINDS",
    "STATUSES",
    "api_keys",
    "audit_log",
    "idempotency_keys",
    "metadata",
    "plan_documents",
    "plan_events",
    "plan_traces",
    "plans",
    "series",
    "series_windows",
    "service",
    "topologies",
    "traces",
    "uploads",
    "webhooks",
]

STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")
KINDS = ("plan", "front", "replan", "simulation", "mixture")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Times are seconds since the epoch, UTC. `seq` is the order of creation, which lists page through. Whatever belongs to
# somebody names its `tenant`; ids are only unique within one where clients choose them (the digest of a trace does).

traces = Table(
    "traces",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(80), nullable=False),
    Column("id", String(80), nullable=False, index=True),
    Column("name", String(200)),
    Column("tags", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("facts", JSON, nullable=False),  # what a full read found out; see api.resources.traces.inspection.Facts
    UniqueConstraint("tenant", "id", name="uq_traces_tenant_id"),
    sqlite_autoincrement=True,
)

# Traces in time. What a series is of (kind, layers, experts) is settled by its first window.
series = Table(
    "series",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(80), nullable=False),
    Column("id", String(40), nullable=False, unique=True),
    Column("name", String(200)),
    Column("tags", JSON, nullable=False),
    Column("alpha", Float, nullable=False),  # rate of false alarms of its test for drift
    Column("axes", JSON(none_as_null=True)),  # kind, layer_ids, num_experts, top_k; null without a window
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),  # when the last window came
    Index("ix_series_tenant_seq", "tenant", "seq"),
    Index("ix_series_updated_at", "updated_at"),
    sqlite_autoincrement=True,
)

# A trace that is a window is not deleted before its series.
series_windows = Table(
    "series_windows",
    metadata,
    Column("series_seq", ForeignKey("series.seq", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 0, in order of time
    Column("trace_seq", ForeignKey("traces.seq"), nullable=False, index=True),
    Column("time", Float),  # as the client said: seconds, a step or an iteration
    Column("added_at", Float, nullable=False),
    Column("load", LargeBinary, nullable=False),  # see api.store.series
    Column("drift", JSON(none_as_null=True)),  # from the windows before; null for the first
)

# Everything that a worker runs: plans, and fronts, which are made of many; re-plans, simulations of policies, mixtures.
plans = Table(
    "plans",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(80), nullable=False),
    Column("id", String(40), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(200)),
    Column("tags", JSON, nullable=False),
    # The request keeps the id of a trace that was deleted after the plan was made.
    Column("trace_seq", ForeignKey("traces.seq", ondelete="SET NULL"), index=True),
    # Of a simulation that was asked for a series: that one, and how many windows it had.
    Column("series_seq", ForeignKey("series.seq", ondelete="SET NULL"), index=True),
    Column("series_length", Integer),
    Column("replaces", String(40)),  # id of the plan that this one is to replace; it may have been deleted since
    Column("request", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),  # rises with every visible change
    Column("attempt", Integer, nullable=False),  # rises with every claim; writes of older attempts are refused
    Column("begun", Integer, nullable=False, default=0),  # the attempt that a worker has begun; none begins twice
    Column("crashes", Integer, nullable=False),  # attempts whose worker died
    Column("claimed_by", String(80)),  # the server that runs the attempt
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
    Column("expected_s", Float),  # how long its worker will be busy, as far as the request tells
    CheckConstraint(f"status IN {STATUSES}", name="status"),
    CheckConstraint(f"kind IN {KINDS}", name="kind"),
    Index("ix_plans_status_seq", "status", "seq"),
    Index("ix_plans_tenant_seq", "tenant", "seq"),
    Index("ix_plans_finished_at", "finished_at"),
    sqlite_autoincrement=True,
)

# Large and seldom read, so apart from what every poll reads.
plan_documents = Table(
    "plan_documents",
    metadata,
    Column("plan_id", ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("start", Text),  # plan file to start from, as it was when the plan was asked for
    Column("plan", Text),  # plan file of the best plan so far; of a front, its points
    Column("summary", Text),
)

# The traces of what needs several, such as those of a mixture's domains, in order.
plan_traces = Table(
    "plan_traces",
    metadata,
    Column("plan_id", ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("trace_seq", ForeignKey("traces.seq", ondelete="CASCADE"), nullable=False, index=True),
)

# What happened to a plan, one row per revision, so that a client that was away can be told all it missed.
plan_events = Table(
    "plan_events",
    metadata,
    Column("plan_id", ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("data", JSON, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", String(80), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_hash", String(64), nullable=False),
    Column("plan_id", ForeignKey("plans.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Float, nullable=False, index=True),
)

topologies = Table(
    "topologies",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(80), nullable=False),
    Column("id", String(40), nullable=False, unique=True),
    Column("name", String(200)),
    Column("tags", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("content", JSON, nullable=False),  # a topology file
    Index("ix_topologies_tenant_seq", "tenant", "seq"),
    sqlite_autoincrement=True,
)

# Traces that arrive in parts. The bytes are in the blobs' incoming folder, under the upload's id.
uploads = Table(
    "uploads",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(80), nullable=False),
    Column("id", String(40), nullable=False, unique=True),
    Column("name", String(200)),
    Column("hints", JSON, nullable=False),
    Column("bytes", BigInteger),  # of the whole file, if the client said so
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(80), nullable=False, index=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("name", String(200)),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the key, which is kept nowhere
    Column("scopes", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("last_used_at", Float),
    sqlite_autoincrement=True,
)

# Who changed what. Rows are never changed, and outlive what they tell of.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False, index=True),
    Column("tenant", String(80)),
    Column("actor", String(200)),  # id of the key, or subject of the token
    Column("client", String(80)),  # address
    Column("request_id", String(128)),
    Column("action", String(200), nullable=False),  # method and route
    Column("target", String(400)),  # path
    Column("status", Integer, nullable=False),
    sqlite_autoincrement=True,
)

# What the operator's webhook is to be told, until it was, or was tried often enough.
webhooks = Table(
    "webhooks",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False, index=True),
    sqlite_autoincrement=True,
)

# One row: what the database has of the service as a whole.
service = Table(
    "service",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("identity", String(64), nullable=False),  # the same as that of the folder of traces
    Column("seen_at", Float),  # the clock when it was last looked at; see api.store.clock
    Column("hold_s", Float, nullable=False),  # how long nothing is deleted by age yet
)

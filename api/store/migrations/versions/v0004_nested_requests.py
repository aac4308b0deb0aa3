"""Stored requests are nested as the library has them, and stored documents say replica where they said copy."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEYS = {
    "copy_policy": "replica_policy",
    "extra_copies": "extra_replicas",
    "distinct_copies": "distinct_replicas",
    "redundant_slots": "redundant_experts",
}

OBJECTIVE = ("execution", "dedup", "ownership", "replica_policy", "activated_weight", "decode_batch")
CONSTRAINTS = (
    "load_cap",
    "layer_load_caps",
    "load_quantile",
    "load_groups",
    "extra_replicas",
    "extra_bytes",
    "pins",
    "forbidden",
    "groups",
)

plans = sa.table("plans", sa.column("seq", sa.Integer), sa.column("request", sa.JSON))
documents = sa.table(
    "plan_documents",
    sa.column("plan_id", sa.String),
    sa.column("start", sa.Text),
    sa.column("plan", sa.Text),
    sa.column("summary", sa.Text),
)


def upgrade() -> None:
    """Apply."""
    connection = op.get_bind()
    for seq in connection.execute(sa.select(plans.c.seq)).scalars().all():
        this = plans.c.seq == seq
        request = connection.execute(sa.select(plans.c.request).where(this)).scalar_one()
        connection.execute(plans.update().where(this).values(request=converted_request(request)))
    for plan_id in connection.execute(sa.select(documents.c.plan_id)).scalars().all():
        this = documents.c.plan_id == plan_id
        row = connection.execute(sa.select(documents.c.start, documents.c.plan, documents.c.summary).where(this)).one()
        texts = {name: converted_text(text) for name, text in row._mapping.items() if text is not None}
        if texts:
            connection.execute(documents.update().where(this).values(texts))


def converted_request(request: dict[str, Any]) -> dict[str, Any]:
    """Return the request of a plan or front with the fields of this revision.

    What had no effect under its execution is left out: it is refused today.
    """
    found: dict[str, Any] = renamed(request)
    objective = {name: found.pop(name) for name in OBJECTIVE if name in found}
    constraints = {name: found.pop(name) for name in CONSTRAINTS if name in found}
    dispatch = objective.get("execution") == "dispatch"
    if not dispatch:
        for name in ("dedup", "ownership"):
            objective.pop(name, None)
    if not objective.get("activated_weight"):
        objective.pop("decode_batch", None)
    if dispatch and constraints.get("layer_load_caps") and constraints.get("load_cap") is None:
        objective |= {"imbalance_weight": 30.0, "load_spread_weight": 60.0, "load_spread_tolerance": 0.0}  # as it was
    limits = dict(found.pop("limits", None) or {})
    if "time_limit_s" in limits:
        limits["time_s"] = limits.pop("time_limit_s")
    parts = {"objective": objective, "constraints": constraints, "limits": limits}
    return found | {name: part for name, part in parts.items() if part}


def converted_text(text: str) -> str:
    """Return a plan file, the points of a front or a summary with the names of this revision."""
    end = "\n" if text.endswith("\n") else ""
    content = renamed(json.loads(text))
    if isinstance(content, dict) and isinstance(points := content.get("plans"), list):  # a front: plan files as texts
        content["plans"] = [converted_text(point) for point in points]
    return json.dumps(content, allow_nan=False) + end


def renamed(value: Any) -> Any:
    """Return a value with the new names, at any depth."""
    if isinstance(value, list):
        return [renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {KEYS.get(name, name): renamed(item) for name, item in value.items()}
    if found.get("against") == "copies":
        found["against"] = "replicas"
    return found

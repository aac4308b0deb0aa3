"""What a webhook is told of a job that has ended: figures and ids, and nothing of what was recorded."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from api.jobs.attempts import Attempt
from api.store.tasks import Task

__all__ = ["replan_pays"]


def replan_pays(attempt: Attempt, task: Task, **figures: Any) -> str | None:
    """Return the message that a re-plan pays; None where the operator has set no webhook."""
    if not attempt.job.webhook:
        return None
    known = {name: task.request.get(name) for name in ("name", "trace", "series")}
    data = {"id": attempt.job.claim.plan_id, "kind": task.kind, "tenant": task.tenant, **known, **figures}
    content = {"type": "replan.pays", "timestamp": datetime.now(UTC).isoformat(), "data": data}
    return json.dumps(content, allow_nan=False)

"""What a body names: traces, plans by id or whole, models by name and never by a path of the service's machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from api.resources.schemas import PlanFile
from api.store.rows import TraceRow
from api.store.tenant import TenantStore
from placement import Plan
from traces import InputError, Violations
from traces.model.presets import load_model, preset_names

__all__ = [
    "check_model",
    "kind_of",
    "known_plan",
    "plan_content",
    "plan_of",
    "plan_text_named",
    "trace_named",
    "traces_named",
]


def trace_named(store: TenantStore, named: str, found: Violations) -> TraceRow | None:
    """Return the trace that the body names; None, and a violation, if there is none."""
    trace = store.traces.get(named)
    if trace is None:
        found.add("unknown_trace", "/trace", f"There is no trace {named}.", "Upload it with POST /v1/traces.")
    return trace


def traces_named(store: TenantStore, named: Sequence[str], found: Violations) -> list[TraceRow | None]:
    """Return the traces that the body names several of, in their places; None, and a violation, where there is none."""
    rows = [store.traces.get(trace_id) for trace_id in named]
    for number, (trace_id, row) in enumerate(zip(named, rows, strict=True)):
        if row is None:
            remedy = "Upload it with POST /v1/traces."
            found.add("unknown_trace", f"/traces/{number}", f"There is no trace {trace_id}.", remedy)
    return rows


def plan_content(store: TenantStore, named: str | PlanFile, place: str, found: Violations) -> Mapping[str, Any] | None:
    """Return the content of a plan that is named by its id, or given whole; None, and a violation, if there is none."""
    if not isinstance(named, str):
        return named.model_dump(exclude_unset=True)
    text = plan_text_named(store, named, place, found)
    content: Mapping[str, Any] | None = None if text is None else json.loads(text)
    return content


def plan_text_named(store: TenantStore, named: str, place: str, found: Violations) -> str | None:
    """Return the text of the plan of a plan, or re-plan, by its id; None, and a violation, if there is none."""
    row, text, _ = store.plans.documents(named, kind_of(named))
    if row is None:
        found.add("unknown_plan", place, f"There is no plan {named}.", "Name a plan of this service.")
    elif text is None:
        detail = f"Plan {named} has found nothing so far."
        found.add("no_plan_yet", place, detail, "Wait for it, or name another.")
    return text


def known_plan(store: TenantStore, named: str, place: str, found: Violations) -> None:
    """Add a violation if there is no such plan."""
    if store.plans.get(named, kind_of(named)) is None:
        found.add("unknown_plan", place, f"There is no plan {named}.", "Name a plan of this service.")


def kind_of(plan_id: str) -> str:
    """Return the kind of what an id of a plan names: ``plan`` or ``replan``."""
    return plan_id.partition("_")[0]


def plan_of(content: Mapping[str, Any], place: str, found: Violations) -> Plan | None:
    """Return the plan of a plan file's content; None, and violations, if it is none."""
    try:
        return Plan.from_dict({name: value for name, value in content.items() if name != "termination"}, place)
    except InputError as error:
        found.extend(error)
        return None


def check_model(name: str, found: Violations, place: str = "/model") -> None:
    """Add a violation where a model is no name of a known one."""
    if name in preset_names():
        return
    try:
        load_model("")
    except InputError as error:
        remedy = error.violations[0].remedy.replace("the path of a config.json, or ", "")
        found.add("unknown_model", place, f"There is no model {name!r:.80}.", remedy)

"""``solve --server``: the same command line, the search runs on a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import print_json, say, table, write
from api.cli.progress import progress
from api.cli.remote.service import body_of, raise_failure, service_at
from api.cli.remote.trace import send_trace
from api.cli.view import balance_hint

if TYPE_CHECKING:
    from api.planning import PlanRequest

__all__ = ["plan_fields", "plan_remotely"]

FIGURES = ("traffic", "cross_gpu_fraction", "cross_node_fraction", "imbalance_max_over_mean", "fanout_gpus")


def plan_remotely(
    server: str,
    trace: Path,
    reading: dict[str, Any],
    request: PlanRequest,
    *,
    start: str | None,
    output: Path | None,
    as_json: bool,
) -> dict[str, Any]:
    """Upload a trace, have a service plan for it, write the plan, and print its figures.

    Parameters
    ----------
    server : str
        URL of the service.
    trace : Path
        Or id of a trace of the service.
    reading : dict
        Keyword arguments of `traces.load`.
    request : PlanRequest
        Without a start plan.
    start : str or None
        Id of a plan of the service to start from.
    output : Path or None
        Plan file.
    as_json : bool

    Returns
    -------
    dict
        JSON-ready: what `solve` tells without a service, and what the service says of the plan.

    Raises
    ------
    InputError
        If the service refuses something, or can't be reached.
    NoPlanError
        If the search ended without a plan.
    """
    with progress() as shown, service_at(server) as service:
        from api.resources.schemas import PlanBody  # installed with the client, which is here

        shown.phase("uploading")
        uploaded = send_trace(service, trace, reading)
        shown.phase("waiting for the service")
        asked = service.plan(body_of(PlanBody, plan_fields(uploaded, request, start)))
        try:
            for news in service.watch(asked.id):
                shown.news(news.score, news.bound, news.gap)
        except KeyboardInterrupt:
            say("The search is asked to stop; its best plan is kept.", "note")
            service.cancel(asked.id)
        plan = service.wait(asked.id)
    if output is not None and plan.plan is not None:
        from placement import Plan

        Plan.from_dict(plan.plan).save(output)
    hint = None if plan.summary is None else balance_hint(plan.summary)
    document = plan.model_dump(mode="json", exclude={"plan"}) | {
        "plan": None if output is None else str(output),
        "report": None,
        "hints": [] if hint is None else [hint],
    }
    for note in () if plan.summary is None else plan.summary["notes"]:
        say(note, "note")
    for warning in plan.warnings:
        say(warning, "warning")
    if plan.error is not None:
        raise_failure(plan.id, server, plan.error)
    if hint is not None:
        say(hint, "hint")
    if as_json:
        print_json(document)
        return document
    parts = [f"{name} {value:.5f}" for name in ("score", "bound") if (value := getattr(plan, name)) is not None]
    parts += [] if plan.gap is None else [f"gap {plan.gap:.2%}"]
    write(f"{plan.id} {plan.status} after {plan.elapsed_s or 0:.1f} s: {', '.join(parts)}")
    if plan.summary is not None:
        write("\n" + _figures(plan.summary) + "\n")
    if output is not None and plan.plan is not None:
        write(f"Plan written to {output}")
    return document


def plan_fields(trace_id: str, request: PlanRequest, start: str | None) -> dict[str, Any]:
    """Return the content of a request for a plan."""
    from dataclasses import asdict

    from placement.topology.file import topology_to_dict

    constraints = {name: value for name, value in asdict(request.constraints).items() if value not in (None, ())}
    constraints.pop("distinct_replicas", None)
    limits = request.limits
    told = {"time_limit_s": limits.time_s, "work": limits.work, "gap": limits.gap, "stall_s": limits.stall_s}
    if limits.time_s is not None:  # else every null counts: no time limit, rather than the usual one
        told = {name: value for name, value in told.items() if value is not None}
    fields: dict[str, Any] = {
        "trace": trace_id,
        "topology": topology_to_dict(request.topology),
        "slots_per_gpu": request.slots_per_gpu,
        "solver": request.solver,
        "options": dict(request.options),
        "execution": request.execution,
        "dedup": request.dedup,
        "ownership": request.ownership,
        "replica_policy": request.replica_policy,
        "hold_out": request.hold_out,
        "seed": request.seed,
        "start": start,
        "limits": told,
        "name": None,
    }
    if request.activated_weight:
        fields |= {"activated_weight": request.activated_weight, "decode_batch": request.decode_batch}
    if request.expert_bytes is not None:
        fields["expert_bytes"] = request.expert_bytes
    return fields | constraints


def _figures(summary: dict[str, Any]) -> str:
    """Return a table of the plans of a summary, fitted and held out."""
    rows = []
    for name, plan in summary["plans"].items():
        for part in ("fit", "held_out"):
            figures = plan.get(part)
            if figures is not None:
                rows.append([name, part.replace("_", " "), *(_number(figures.get(key)) for key in FIGURES)])
    return table(["plan", "tokens", *(key.replace("_", "\n", 1) for key in FIGURES)], rows, left=2)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"

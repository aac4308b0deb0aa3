"""Planning on a service (``--server URL``): the same command line, the search runs there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import print_json, say, table, write
from api.cli.progress import progress

if TYPE_CHECKING:
    from api.planning import PlanRequest

__all__ = ["KEY_VARIABLE", "plan_remotely"]

KEY_VARIABLE = "MOE_PLACEMENT_API_KEY"
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
        URL of the service. The environment variable MOE_PLACEMENT_API_KEY has the key, where it asks for one.
    trace : Path
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
        JSON-ready: id and plan of the service, the plan file's name, and what the service says of it.

    Raises
    ------
    InputError
        If the service refuses something, or can't be reached.
    """
    from api.client import Client, ServiceError
    from traces import InputError, Violation

    check_server(server)
    try:
        with progress() as shown, Client(server, os.environ.get(KEY_VARIABLE)) as service:
            shown.phase("uploading")
            uploaded = service.upload(trace, **_reading(reading))
            shown.phase("waiting for the service")
            asked = service.plan(_body(uploaded.id, request, start))
            try:
                for news in service.watch(asked.id):
                    shown.news(news.score, news.bound, news.gap)
            except KeyboardInterrupt:
                say("The search is asked to stop; its best plan is kept.", "note")
                service.cancel(asked.id)
            plan = service.wait(asked.id)
            if output is not None and plan.plan is not None:
                from placement import save_plan
                from placement.files import plan_from_dict

                save_plan(plan_from_dict(plan.plan), output)
    except ImportError as error:
        raise InputError.of("no_client", "--server", str(error), "Install it, or plan without --server.") from None
    except ServiceError as error:
        told = () if error.problem is None else error.problem.errors
        found = [Violation(code=i.code, pointer=i.pointer, detail=i.detail, remedy=i.remedy) for i in told]
        remedy = f"See {server}{error.problem.type}." if error.problem else "Check the address, and that it runs."
        whole = Violation(code="service", pointer=server, detail=str(error), remedy=remedy)
        raise InputError(tuple(found) or (whole,)) from None
    document = plan.model_dump(mode="json", exclude={"plan"}) | {"plan": None if output is None else str(output)}
    for warning in plan.warnings:
        say(warning, "warning")
    if plan.status == "failed":
        assert plan.error is not None
        raise InputError.of("plan_failed", asked.id, plan.error.detail, f"See {server}{plan.error.type}.")
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


def check_server(server: str) -> None:
    """Refuse what is no address of a service, and a key that no header can carry.

    Raises
    ------
    InputError
    """
    from urllib.parse import urlsplit

    from traces import Violations

    found = Violations()
    try:
        parts = urlsplit(server)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or not server.isascii() or " " in server:
        found.add("server", "--server", f"{server[:100]!r} is no address.", "Give one such as http://127.0.0.1:8000.")
    if not (key := os.environ.get(KEY_VARIABLE, "")).isascii() or not key.isprintable():
        found.add("api_key", KEY_VARIABLE, "The key has characters that no key has.", "Copy the key again.")
    found.raise_if_any()


def _reading(options: dict[str, Any]) -> dict[str, Any]:
    """Return how to read the trace, as the service takes it."""
    known = {name: value for name, value in options.items() if value is not None and name != "model"}
    model = options.get("model")
    if model is not None and "layer_ids" not in known:
        known["layer_ids"] = [int(layer) for layer in model.moe_layer_ids]
    return known


def _body(trace_id: str, request: PlanRequest, start: str | None) -> Any:
    from dataclasses import asdict

    from api.schemas import LimitsBody, PlanBody
    from placement.files import topology_to_dict

    constraints = {name: value for name, value in asdict(request.constraints).items() if value not in (None, ())}
    constraints.pop("distinct_copies", None)
    limits = request.limits
    return PlanBody.model_validate_json(
        _json(
            {
                "trace": trace_id,
                "topology": topology_to_dict(request.topology),
                "slots_per_gpu": request.slots_per_gpu,
                "solver": request.solver,
                "options": dict(request.options),
                "execution": request.execution,
                "dedup": request.dedup,
                "ownership": request.ownership,
                "copy_policy": request.copy_policy,
                "hold_out": request.hold_out,
                "seed": request.seed,
                "start": start,
                "limits": LimitsBody(
                    time_limit_s=limits.time_s, work=limits.work, gap=limits.gap, stall_s=limits.stall_s
                ).model_dump(exclude_none=limits.time_s is not None),
                "name": None,
            }
            | constraints
            | _decoding(request)
        )
    )


def _decoding(request: PlanRequest) -> dict[str, Any]:
    """Return the fields of activated experts, where they count."""
    if not request.activated_weight:
        return {}
    return {"activated_weight": request.activated_weight, "decode_batch": request.decode_batch}


def _json(content: Any) -> str:
    import json

    return json.dumps(content)


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

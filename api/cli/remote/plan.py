"""``solve --server``: the same command line, the search runs on a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import print_json, say, write
from api.cli.hints import balance_hint
from api.cli.progress import progress
from api.cli.remote.service import body_of, raise_failure, service_at
from api.cli.remote.trace import send_trace

if TYPE_CHECKING:
    from traces import ModelLayout

__all__ = ["plan_remotely"]


def plan_remotely(
    server: str,
    trace: Path,
    reading: dict[str, Any],
    body: dict[str, Any],
    *,
    output: Path,
    as_json: bool,
    model: ModelLayout | None = None,
    config: str | None = None,
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
    body : dict
        What was asked, as a request for a plan says it, but the trace.
    output : Path
        Plan file.
    as_json : bool
    model : ModelLayout, optional
        For the engine's file.
    config : str, optional
        The model's config.json, as it was named.

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
    from api.cli.engine_file import EngineFile
    from api.report.summary import warnings_text
    from api.report.verdict import NO_ENGINE, UNITS

    with progress() as shown, service_at(server) as service:
        from api.resources.schemas import PlanBody  # installed with the client, which is here

        shown.phase("uploading")
        uploaded = send_trace(service, trace, reading)
        shown.phase("waiting for the service")
        asked = service.plan(body_of(PlanBody, {"trace": uploaded} | body))
        try:
            for news in service.watch(asked.id):
                shown.news(news.score, news.bound, news.gap)
        except KeyboardInterrupt:
            say("The search is asked to stop; its best plan is kept.", "note")
            service.cancel(asked.id)
        plan = service.wait(asked.id)
    engine = None if plan.plan is None else plan.plan.get("provenance", {}).get("engine")
    engine_file = EngineFile.beside(output, engine, model, config)
    loaded: dict[str, Any] | None = None
    if plan.plan is not None:
        from placement import Plan

        found = Plan.from_dict(plan.plan)
        found.save(output)
        loaded = None if engine_file is None else engine_file.write(found)
    text = None if plan.summary is None else plan.summary.pop("text", None)  # for people; the figures are those of here
    hint = None if plan.summary is None else balance_hint(plan.summary)
    timed = body.get("time", {}).get("machine") is not None
    said = timed or body.get("objective", {}).get("execution") is not None
    document = plan.model_dump(mode="json", exclude={"plan"}) | {
        "plan": None if plan.plan is None else str(output),
        "report": None,
        "engine": engine,
        "engine_file": None if loaded is None else loaded["file"],
        "load": None if loaded is None else loaded["load"],
        "unit": UNITS[timed],
        "assumed": NO_ENGINE if engine is None and not said else None,
        "hints": [] if hint is None else [hint],
    }
    if plan.summary is not None and "advice" in plan.summary:
        document["advice"] = plan.summary["advice"]
    for note in () if plan.summary is None else plan.summary["notes"]:
        say(note, "note")
    for warning in warnings_text(plan.warnings):
        say(warning, "warning")
    if plan.error is not None:
        raise_failure(plan.id, server, plan.error)
    if hint is not None:
        say(hint, "hint")
    if as_json:
        print_json(document)
        return document
    if text is not None:
        write(f"{text}\n")
    else:  # cancelled before it was made
        parts = [f"{name} {value:.5f}" for name in ("score", "bound") if (value := getattr(plan, name)) is not None]
        write(f"{plan.id} {plan.status} after {plan.elapsed_s or 0:.1f} s: {', '.join(parts)}")
        if document["assumed"] is not None:
            write(document["assumed"])
    if plan.plan is not None:
        write(f"Plan written to {output}")
    if engine_file is not None and loaded is not None:
        engine_file.tell(loaded)
    return document

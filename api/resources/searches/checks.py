"""What is checked of a request before it is queued, without reading the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.resources.traces.answers import engine_of_facts
from api.resources.traces.inspection import outline
from solvers import Request, Study, check_start, solver_from
from solvers.requests.served import Timed
from solvers.sources.source import dumps_held_out, refuse_unused
from traces import InputError
from traces.splitting import no_sources

__all__ = ["check"]

CHECK_CELLS = 50_000_000  # above it, a request is checked by its worker only


def check(request: Request, facts: Mapping[str, Any], max_job_bytes: int, profiles: int = 1) -> None:
    """Check a request against what is known of its trace, without reading the trace.

    Parameters
    ----------
    request : Request
    facts : mapping
        See `api.resources.traces.inspection.inspect`.
    max_job_bytes : int
        Largest estimate of memory to let pass.
    profiles : int
        How many profiles of these sizes the job holds at once.

    Raises
    ------
    InputError
    """
    layers, experts, gpus = len(facts["layer_ids"]), facts["num_experts"], request.machine.num_gpus
    matrices = 2 * layers * experts * experts if facts["has_affinity"] else 0
    need = profiles * 8 * (matrices + 4 * layers * experts * gpus + (layers + 8) * gpus * gpus)
    if need > max_job_bytes:
        limit = f"{max_job_bytes / 1e9:.1f} GB"
        times, fewer = (f", {profiles} times,", "domains, ") if profiles > 1 else ("", "")
        detail = f"{layers} layers, {experts} experts and {gpus} GPUs{times} need about {need / 1e9:.1f} GB."
        remedy = f"This service takes jobs up to {limit}. Use fewer {fewer}layers, experts or GPUs."
        raise InputError.of("job_too_large", "/topology", detail, remedy)
    if facts["kind"] == "counts" and "dumps" in facts:  # facts of earlier versions do not say it: the worker tells
        dumps_held_out(facts["dumps"], request.hold_out, request.hold_out_by)
    refuse_unused(request.hold_out, request.hold_out_by)
    if request.hold_out_by == "source" and facts["kind"] == "trace" and "data_source" not in facts["columns"]:
        raise no_sources("The trace", 0)
    if (request.hold_out or request.hold_out_by) and facts["kind"] == "profile":
        detail = "Only a trace with tokens, or counts with several dumps, can be split; this is a profile."
        raise InputError.of(
            "hold_out_counts", "/hold_out" if request.hold_out else "/hold_out_by", detail, "Leave it out."
        )
    request = _without_time(request, facts)
    if layers * experts * gpus > CHECK_CELLS:
        return
    request = replace(request, hold_out=None, hold_out_by=None)
    if request.engine is None and request.objective.execution is None:  # the outline does not say who recorded it
        request = replace(request, engine=engine_of_facts(facts))
    problem = Study.of(outline(facts), request=request).problem
    if reason := solver_from(request.solver, dict(request.options)).supports(problem):
        detail = f"{request.solver}: {reason}"
        raise InputError.of("unsupported", "/solver", detail, "Choose another solver, such as 'auto'.")
    if request.start is not None:
        check_start(problem, request.start)


def _without_time(request: Request, facts: Mapping[str, Any]) -> Request:
    """Check what is asked of time as far as facts can tell, and return the rest of the request."""
    if not request.time:
        return request
    if facts["kind"] == "counts":
        detail = "Time needs tokens, in passes: the source holds counts."
        raise InputError.of("counts_only", "/time", detail, "Give a trace with token identity (topk_ids).")
    model = request.time.time_model(request.engine)
    if model.model.shape.num_experts != facts["num_experts"]:
        detail = f"{model.model.name} has {model.model.shape.num_experts} experts, the trace {facts['num_experts']}."
        raise InputError.of("experts_differ", "/time/model", detail, "Name the model that was recorded.")
    return replace(request, time=Timed())

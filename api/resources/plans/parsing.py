"""From a body to library objects: every violation at once, with pointers into the body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.planning import PlanRequest, prepare
from api.resources.schemas import GroupBody, LimitsBody, PinBody, PlanBody, TopologyFile
from api.resources.traces.inspection import outline
from placement import Constraints, Group, LayerCap, Pin, Plan, Topology
from placement.topology.file import topology_from_dict
from solvers import Limits, check_start, solver_from
from traces import InputError, Violation, Violations

__all__ = ["DEFAULT_TIME_LIMIT_S", "check", "limits_of", "plan_request", "topology_of"]

DEFAULT_TIME_LIMIT_S = 10.0
CHECK_CELLS = 50_000_000  # above it, a request is checked by its worker only

# Pointers of the library -> pointers into the body.
_PREFIXES = {
    "/objective/": "/",
    "/constraints/": "/",
    "/limits/time_s": "/limits/time_limit_s",
}


def translate(error: InputError) -> InputError:
    """Return the error with the pointers of the body."""

    def translated(pointer: str) -> str:
        for old, new in _PREFIXES.items():
            if pointer.startswith(old):
                return new + pointer.removeprefix(old)
        return pointer

    return InputError(
        tuple(
            Violation(code=item.code, pointer=translated(item.pointer), detail=item.detail, remedy=item.remedy)
            for item in error.violations
        )
    )


def topology_of(field: str | TopologyFile) -> Topology:
    """Build the topology of a body.

    Raises
    ------
    InputError
        With pointers below ``/topology``.
    """
    if isinstance(field, str):
        return Topology.parse(field)
    return topology_from_dict(field.model_dump(exclude_unset=True, exclude_none=True), "/topology")


def limits_of(body: LimitsBody, max_time_limit_s: float) -> Limits:
    """Return the limits, with the default time limit where none is asked for.

    Raises
    ------
    InputError
    """
    time_s = body.time_limit_s
    if time_s is None and "time_limit_s" not in body.model_fields_set and body.work is None:
        time_s = min(DEFAULT_TIME_LIMIT_S, max_time_limit_s)
    if time_s is not None and time_s > max_time_limit_s:
        detail = f"{time_s:g} s is longer than this service searches."
        remedy = f"Give at most {max_time_limit_s:g} s."
        raise InputError.of("limit_range", "/limits/time_limit_s", detail, remedy)
    return Limits(time_s=time_s, work=body.work, gap=body.gap, stall_s=body.stall_s)


def plan_request(body: PlanBody, max_time_limit_s: float, start: Plan | None = None) -> PlanRequest:
    """Build the request of a body.

    Raises
    ------
    InputError
        With all violations of topology, limits and solver options.
    """
    found = Violations()
    topology, limits = Topology.parse("1x1"), Limits()
    try:
        topology = topology_of(body.topology)
    except InputError as error:
        found.extend(error)
    try:
        limits = limits_of(body.limits, max_time_limit_s)
    except InputError as error:
        found.extend(error)
    try:
        solver_from(body.solver, body.options)
    except InputError as error:
        found.extend(error)
    found.raise_if_any()
    return PlanRequest(
        topology=topology,
        slots_per_gpu=body.slots_per_gpu,
        solver=body.solver,
        options=body.options,
        execution=body.execution,
        dedup=body.dedup,
        ownership=body.ownership,
        replica_policy=body.replica_policy,
        activated_weight=body.activated_weight,
        decode_batch=body.decode_batch,
        constraints=Constraints(
            load_cap=body.load_cap,
            layer_load_caps=tuple(
                LayerCap(layer_id=item.layer_id, load_cap=item.load_cap) for item in body.layer_load_caps
            ),
            load_quantile=body.load_quantile,
            load_groups=body.load_groups,
            extra_replicas=body.extra_replicas,
            extra_bytes=body.extra_bytes,
            pins=tuple(map(_pin, body.pins)),
            forbidden=tuple(map(_pin, body.forbidden)),
            groups=tuple(map(_group, body.groups)),
        ),
        expert_bytes=body.expert_bytes,
        hold_out=body.hold_out,
        limits=limits,
        seed=body.seed,
        start=start,
    )


def check(request: PlanRequest, facts: Mapping[str, Any], max_job_bytes: int) -> None:
    """Check a request against what is known of its trace, without reading the trace.

    Parameters
    ----------
    request : PlanRequest
    facts : mapping
        See `api.resources.traces.inspection.inspect`.
    max_job_bytes : int
        Largest estimate of memory to let pass.

    Raises
    ------
    InputError
    """
    layers, experts, gpus = len(facts["layer_ids"]), facts["num_experts"], request.topology.num_gpus
    matrices = 2 * layers * experts * experts if facts["has_affinity"] else 0
    need = 8 * (matrices + 4 * layers * experts * gpus + (layers + 8) * gpus * gpus)
    if need > max_job_bytes:
        detail = f"{layers} layers, {experts} experts and {gpus} GPUs need about {need / 1e9:.1f} GB."
        remedy = f"This service takes jobs up to {max_job_bytes / 1e9:.1f} GB. Use fewer layers, experts or GPUs."
        raise InputError.of("job_too_large", "/topology", detail, remedy)
    if request.hold_out and facts["kind"] != "trace":
        detail = "Only a trace with tokens can be split; this one holds statistics."
        raise InputError.of("hold_out_counts", "/hold_out", detail, "Leave hold_out out, or give 0.")
    if layers * experts * gpus > CHECK_CELLS:
        return
    try:
        problem = prepare(outline(facts), replace(request, hold_out=None)).problem
        if reason := solver_from(request.solver, dict(request.options)).supports(problem):
            detail = f"{request.solver}: {reason}"
            raise InputError.of("unsupported", "/solver", detail, "Choose another solver, such as 'auto'.")
        if request.start is not None:
            check_start(problem, request.start)
    except InputError as error:
        raise translate(error) from None


def _pin(body: PinBody) -> Pin:
    return Pin(expert=body.expert, gpu=body.gpu, layer_id=body.layer_id)


def _group(body: GroupBody) -> Group:
    return Group(experts=tuple(body.experts), layer_id=body.layer_id)

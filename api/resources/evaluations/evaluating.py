"""Evaluations: from a body to `placement.evaluate`, which runs in a helper process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.resources.evaluation_body import EvaluationBody
from api.resources.requests import topology_of
from api.resources.schemas import PlanBody, TopologyFile
from api.resources.traces.stored import StoredTrace
from placement import Plan, evaluate
from placement.replay.choices import CHOICES, engine_choices, recorded_topology
from solvers.judging.counted import counts_figures, refuse_token_options
from solvers.sources.source import part_of
from traces import InputError, LoadCounts
from traces.support.words import HoldOutBy

__all__ = ["Replay", "replay", "replay_of"]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Everything that a replay needs; pickles. In `asked`, None is as the plan was made for."""

    plan: dict[str, Any]
    topology: str | TopologyFile
    asked: dict[str, Any]
    part: str
    hold_out: float | None
    hold_out_by: HoldOutBy | None
    trace: StoredTrace
    workers: int | None


def replay_of(body: EvaluationBody, plan: Mapping[str, Any], request: Mapping[str, Any] | None, **known: Any) -> Replay:
    """Fill in the topology that the body leaves out; how tokens travel is in the plan's provenance.

    Parameters
    ----------
    body : EvaluationBody
    plan : mapping
        Content of a plan file.
    request : mapping or None
        The plan's request; None for an inline plan.
    **known
        The other fields of `Replay`.
    """
    if body.topology is not None:
        topology = body.topology
    elif request is not None:
        topology = PlanBody.model_validate(request).topology or _topology(plan)
    else:
        topology = _topology(plan)
    asked = {name: getattr(body, name) for name in ("engine", *CHOICES, "decode_batch", "pass_tokens")}
    known |= {"asked": asked, "part": body.part, "hold_out": body.hold_out, "hold_out_by": body.hold_out_by}
    return Replay(plan=dict(plan), topology=topology, **known)


def replay(task: Replay, max_bytes: int) -> dict[str, Any]:
    """Replay the trace through the plan.

    Parameters
    ----------
    task : Replay
    max_bytes : int
        Largest estimate of memory to let pass.

    Returns
    -------
    dict
        ``kind`` is ``tokens``: see `placement.Evaluation.as_dict`; or ``counts``: see
        `solvers.judging.counted.CountsFigures.as_dict`. And ``notes`` on the topology and on what was read.

    Raises
    ------
    InputError
    """
    plan, topology = _plan(task.plan), topology_of(task.topology)
    threads = 1 if task.workers is None else task.workers
    need = 8 * plan.num_layers * topology.num_gpus**2 * (threads + 2)
    if need > max_bytes:
        detail = f"{plan.num_layers} layers and {topology.num_gpus} GPUs need about {need / 1e9:.1f} GB."
        remedy = f"This service takes evaluations up to {max_bytes / 1e9:.1f} GB."
        raise InputError.of("job_too_large", "/topology", detail, remedy)
    trace, notes = part_of(task.trace.open(), task.part, task.hold_out, "/trace", task.hold_out_by)
    told = [*topology.notes, *topology.warnings]
    if isinstance(trace, LoadCounts):
        refuse_token_options({f"/{name}": value for name, value in task.asked.items()})
        engine, policy = task.asked["engine"], task.asked["replica_policy"]
        found = counts_figures(plan, trace, topology, task.part, engine=engine, replica_policy=policy)
        return {"kind": "counts", **found.as_dict(), "notes": [*told, *notes]}
    _, own = engine_choices(task.asked["engine"], trace)
    figures = evaluate(plan, trace, topology, **task.asked, workers=threads).as_dict()
    return {"kind": "tokens", **figures, "notes": [*told, *own, *notes]}


def _plan(content: Mapping[str, Any]) -> Plan:
    return Plan.from_dict({name: value for name, value in content.items() if name != "termination"}, "/plan")


def _topology(plan: Mapping[str, Any]) -> str | TopologyFile:
    """Return the topology that the provenance records, else one of the plan's nodes with generic links."""
    if recorded_topology(_plan(plan), "/plan") is not None:
        return TopologyFile.model_validate(plan["provenance"]["topology"])
    sizes = plan["gpus_per_node"]
    if isinstance(sizes, int):
        return TopologyFile(gpus_per_node=sizes, num_nodes=max(1, plan["num_gpus"] // sizes))
    return TopologyFile(gpus_per_node=sizes)

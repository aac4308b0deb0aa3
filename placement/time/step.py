"""The time of a plan on a trace: milliseconds per forward pass, part by part and layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.plan.plan import Plan
from placement.problem.objective import Execution, Objective, Ownership, ReplicaPolicy, SettledObjective
from placement.replay.choices import engine_choices
from placement.time.model import TimeModel
from placement.time.passes import MAX_PASSES, LayerTimes, PassReplay
from traces import InputError, Trace, Violations
from traces.support.kinds import checked

__all__ = ["StepTime", "check_fit", "step_time", "travel_in_steps"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Time of a forward pass under a plan: means over passes of what the slowest rank takes.

    Attributes
    ----------
    step_ms : float
        Of a whole pass, attention and the layers without experts included.
    moe_ms : float
        Of all MoE layers: dispatch, experts and combine, or moves and the AllGather of context-coherent execution.
    moe_share : float
        `moe_ms` over what a step takes if nothing is hidden: with two-batch overlap, that of both halves.
    dispatch_ms, experts_ms, combine_ms : (L,) float64
        Of each MoE layer.
    rest_ms : float
        Of each layer, MoE or not, beside these.
    gather_ms : float
        Of a pass: the AllGather of new tokens, where tokens never go home.
    pass_ms : (P,) float64
        The step of each pass.
    passes : int
        P; the passes that were replayed.
    scale : float
        What counts were multiplied by: above 1 where the trace is shorter than a pass.
    error_fraction : float
        Typical relative error of the model, from what was held out of its fits.
    notes : tuple of str
    """

    step_ms: float
    moe_ms: float
    moe_share: float
    dispatch_ms: Floats
    experts_ms: Floats
    combine_ms: Floats
    rest_ms: float
    gather_ms: float
    pass_ms: Floats
    passes: int
    scale: float
    error_fraction: float
    notes: tuple[str, ...]


@checked
def step_time(
    plan: Plan,
    trace: Trace,
    time: TimeModel,
    *,
    engine: str | None = None,
    execution: Execution | None = None,
    ownership: Ownership | None = None,
    replica_policy: ReplicaPolicy | None = None,
    passes: int = MAX_PASSES,
) -> StepTime:
    """Return the time of forward passes of a trace under a plan.

    Passes are consecutive tokens of the trace, ``time.pass_tokens`` each. In every pass and layer the slowest rank
    counts; means are taken over passes of these maxima, never the other way round.

    Parameters
    ----------
    plan : Plan
    trace : Trace
    time : TimeModel
    engine : str, optional
        Tokens choose replicas as this engine does; what else is given wins.
    execution, ownership, replica_policy : optional
        See `Objective`; ``dispatch`` by default. The messages follow from the back end of `time`.
    passes : int
        Passes at most.

    Raises
    ------
    InputError
        If plan, trace, machine and model do not fit together, or the trace holds no token.
    """
    check_fit(plan, trace, time)
    if passes < 1:
        raise InputError.of("passes_range", "/passes", f"{passes} passes.", "Give at least 1.")
    objective = travel_in_steps(trace, time, engine, execution, ownership, replica_policy)
    replay = PassReplay(plan, time.topology, objective, relayed=time.relayed)
    times: list[LayerTimes] = []
    steps: list[float] = []
    scale = 1.0
    for load, scaled in replay.loads(trace, time.pass_tokens, passes):
        scale = scaled
        found = time.layer_times(load, objective.execution)
        times.append(found)
        steps.append(time.step_ms(found))
    if not times:
        source = trace.provenance.source
        raise InputError.of("zero_tokens", source, "The trace holds no tokens.", "Check the recording.")
    mean = LayerTimes(
        dispatch=np.mean([part.dispatch for part in times], axis=0),
        experts=np.mean([part.experts for part in times], axis=0),
        combine=np.mean([part.combine for part in times], axis=0),
        rest=time.rest_ms,
        gather=times[0].gather,
    )
    moe = float((mean.dispatch + mean.experts + mean.combine).sum()) + mean.gather
    rest = time.rest_ms * (len(mean.experts) + time.dense_layers)
    notes = list(time.notes)
    if scale > 1:
        notes.append(
            f"The trace is {scale:.3g} times shorter than a pass of {time.pass_tokens:,} tokens: one was scaled up."
        )
    return StepTime(
        step_ms=float(np.mean(steps)),
        moe_ms=moe,
        moe_share=moe / (moe + rest) if moe + rest else 0.0,
        dispatch_ms=mean.dispatch,
        experts_ms=mean.experts,
        combine_ms=mean.combine,
        rest_ms=time.rest_ms,
        gather_ms=mean.gather,
        pass_ms=np.array(steps),
        passes=len(times),
        scale=scale,
        error_fraction=time.error_fraction(mean),
        notes=tuple(notes),
    )


def travel_in_steps(
    trace: Trace,
    time: TimeModel,
    engine: str | None,
    execution: Execution | None,
    ownership: Ownership | None,
    replica_policy: ReplicaPolicy | None,
) -> SettledObjective:
    """Return how tokens travel: as an engine does, what else is given wins, the messages as the back end's."""
    said, _ = engine_choices(engine, trace)
    given = {"execution": execution, "ownership": ownership, "replica_policy": replica_policy}
    chosen: dict[str, Any] = (
        {"execution": "dispatch"} | said | {name: value for name, value in given.items() if value is not None}
    )
    if chosen["execution"] == "dispatch":
        chosen = {"ownership": "token", "replica_policy": "same_node"} | chosen | {"dedup": time.dedup}
    else:
        chosen = {name: value for name, value in chosen.items() if name in ("execution", "replica_policy")}
        chosen = {"replica_policy": "fair"} | chosen
    return Objective(**chosen).settled(capped=False)


def check_fit(plan: Plan, trace: Trace, time: TimeModel) -> None:
    """Raise `InputError` if plan, trace, machine and model do not fit together."""
    found = Violations()
    shape, machine = time.model.shape, time.machine
    if plan.num_gpus != machine.num_gpus:
        detail = f"The plan has {plan.num_gpus} GPUs, the machine {machine.name} has {machine.num_gpus}."
        found.add("gpus_differ", "/machine", detail, "Name the machine that the plan is for.")
    elif tuple(np.bincount(machine.nodes).tolist()) != plan.gpus_per_node:
        detail = f"The plan's nodes have {list(plan.gpus_per_node)} GPUs, those of {machine.name} others."
        found.add("nodes_differ", "/machine", detail, "Name the machine that the plan is for.")
    if shape.num_experts != trace.num_experts or shape.num_experts != plan.num_experts:
        detail = (
            f"{time.model.name} has {shape.num_experts} experts, the trace {trace.num_experts}, the plan "
            f"{plan.num_experts}."
        )
        found.add("experts_differ", "/model", detail, "Name the model that was recorded.")
    if shape.top_k < trace.top_k:
        detail = f"{time.model.name} routes a token to {shape.top_k} experts, the trace has {trace.top_k}."
        found.add("top_k_differs", "/model", detail, "Name the model that was recorded.")
    if plan.layer_ids.tolist() != trace.layer_ids.tolist():
        found.add("layers_differ", "/plan/layer_ids", "Plan and trace have other layers.", "Use those of the trace.")
    found.raise_if_any()

"""A part of a trace replayed through a plan, for both ways that tokens travel, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from placement import Evaluation, Objective, Plan, SettledObjective, Topology, evaluate
from placement.problem.objective import Execution
from traces import Trace
from traces.support.content import ByContent

__all__ = ["FIGURES", "PartFigures", "part_figures", "replay_as_planned", "replay_both"]

FIGURES = (
    "tokens",
    "cross_gpu_fraction",
    "cross_node_fraction",
    "fanout_gpus",
    "fanout_nodes",
    "traffic",
    "traffic_unit",
    "imbalance_max_over_mean",
    "balancedness_whole_trace",
    "imbalance_optimal_split",
    "activated_experts",
)
DISPATCH_FIGURES = (
    "cross_gpu_fraction",
    "cross_node_fraction",
    "fanout_gpus",
    "fanout_nodes",
    "remote_gpus",
    "remote_nodes",
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PartFigures(ByContent):
    """A plan on one part of the trace, for both ways that tokens travel.

    Attributes
    ----------
    evaluation : Evaluation
        Under the problem's execution; the same object as one of the others.
    context_coherent, dispatch : Evaluation
    """

    evaluation: Evaluation
    context_coherent: Evaluation
    dispatch: Evaluation

    def __repr__(self) -> str:
        return repr(self.evaluation)


def replay_as_planned(
    plan: Plan,
    trace: Trace,
    topology: Topology,
    objective: SettledObjective,
    *,
    pass_tokens: Sequence[int] = (),
    workers: int | None = None,
) -> Evaluation:
    """Replay a trace under an objective, whatever the plan was made for.

    Parameters
    ----------
    plan : Plan
    trace : Trace
    topology : Topology
    objective : SettledObjective
    pass_tokens : sequence of int
        See `placement.evaluate`.
    workers : int, optional
    """
    policy = objective.replica_policy
    more: dict[str, Any] = {"pass_tokens": pass_tokens, "workers": workers}
    if objective.execution == "context_coherent":
        return evaluate(plan, trace, topology, execution="context_coherent", replica_policy=policy, **more)
    return evaluate(
        plan,
        trace,
        topology,
        execution="dispatch",
        dedup=objective.dedup,
        ownership=objective.ownership,
        replica_policy=policy,
        decode_batch=objective.decode_batch if objective.activated_weight else None,
        **more,
    )


def replay_both(
    plan: Plan,
    trace: Trace,
    topology: Topology,
    objective: SettledObjective,
    *,
    pass_tokens: Sequence[int] = (),
    workers: int | None = None,
) -> PartFigures:
    """Replay a trace under the objective's execution, and under the other one with its usual choices."""
    other: Execution = "dispatch" if objective.execution == "context_coherent" else "context_coherent"
    usual = Objective(execution=other).settled(capped=False)
    own = replay_as_planned(plan, trace, topology, objective, pass_tokens=pass_tokens, workers=workers)
    found = replay_as_planned(plan, trace, topology, usual, workers=workers)
    context, home = (own, found) if other == "dispatch" else (found, own)
    return PartFigures(evaluation=own, context_coherent=context, dispatch=home)


def part_figures(found: PartFigures) -> dict[str, Any]:
    """Return the JSON-ready figures of a plan on a part."""
    context, dispatch = found.context_coherent, found.dispatch
    figures = {name: getattr(found.evaluation, name) for name in FIGURES}
    figures["per_pass"] = [asdict(item) for item in found.evaluation.per_pass]
    return figures | {
        "context_coherent": {name: getattr(context, name) for name in ("cross_gpu_fraction", "cross_node_fraction")},
        "dispatch": {name: getattr(dispatch, name) for name in ("ownership", "dedup", "replica_policy")}
        | {name: getattr(dispatch, name) for name in DISPATCH_FIGURES},
    }

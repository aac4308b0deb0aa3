"""A part of a trace replayed through a plan, for both ways that tokens travel, and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from placement import Evaluation, Objective, Plan, SettledObjective, Topology
from placement.problem.objective import Execution
from placement.replay.evaluate import Asked, evaluate_together
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
    asked = {("", 0): _asked(plan, topology, objective, pass_tokens)}
    return evaluate_together({"": trace}, asked, workers=workers)["", 0]


def replay_both(
    plans: Mapping[str, Plan],
    parts: Mapping[str, Trace],
    topology: Topology,
    objective: SettledObjective,
    *,
    pass_tokens: Sequence[int] = (),
    workers: int | None = None,
) -> dict[tuple[str, str], PartFigures]:
    """Replay parts of a trace under the objective's execution, and under the other one with its usual choices.

    Parameters
    ----------
    plans : mapping of str to Plan
    parts : mapping of str to Trace
        Tokens are read once for all plans, and parts of one trace together.
    topology : Topology
    objective : SettledObjective
    pass_tokens : sequence of int
        See `placement.evaluate`; of the objective's execution.
    workers : int, optional

    Returns
    -------
    dict
        By part and plan.
    """
    other: Execution = "dispatch" if objective.execution == "context_coherent" else "context_coherent"
    usual = Objective(execution=other).settled(capped=False)
    asked = {
        (part, (name, own)): _asked(plan, topology, objective, pass_tokens) if own else _asked(plan, topology, usual)
        for part in parts
        for name, plan in plans.items()
        for own in (True, False)
    }
    found = evaluate_together(parts, asked, workers=workers)
    figures = {}
    for part in parts:
        for name in plans:
            own, far = found[part, (name, True)], found[part, (name, False)]
            context, home = (own, far) if other == "dispatch" else (far, own)
            figures[part, name] = PartFigures(evaluation=own, context_coherent=context, dispatch=home)
    return figures


def _asked(plan: Plan, topology: Topology, objective: SettledObjective, pass_tokens: Sequence[int] = ()) -> Asked:
    """Return the replay of a plan under an objective."""
    options: dict[str, Any] = {"execution": objective.execution, "replica_policy": objective.replica_policy}
    if objective.execution == "dispatch":
        options |= {"dedup": objective.dedup, "ownership": objective.ownership}
        options["decode_batch"] = objective.decode_batch if objective.activated_weight else None
    return Asked(plan, topology, options | {"pass_tokens": pass_tokens})


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

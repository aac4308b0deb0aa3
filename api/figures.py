"""What plans do to the tokens of a trace, side by side with what happens when nobody plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from placement import Evaluation, Objective, Plan, Problem, Topology, evaluate, score
from placement.cost.shares import expected_gpu_load
from placement.replay.choices import choices_of
from solvers import Limits, NoPlanError, solve
from traces import Trace

__all__ = [
    "DISPATCH_FIGURES",
    "FIGURES",
    "Measured",
    "PartFigures",
    "contiguous_plan",
    "expected_load",
    "figures_of",
    "measure",
    "part_figures",
    "replay_both",
]

FIGURES = (
    "tokens",
    "cross_gpu_fraction",
    "cross_node_fraction",
    "fanout_gpus",
    "fanout_nodes",
    "traffic",
    "traffic_unit",
    "imbalance_max_over_mean",
    "balancedness_vllm",
    "imbalance_trtllm",
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


@dataclass(frozen=True, kw_only=True, eq=False)
class PartFigures:
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A named plan and its figures on each part that has tokens."""

    name: str
    plan: Plan
    parts: dict[str, PartFigures]


def contiguous_plan(problem: Problem) -> Plan | None:
    """Return the plan that engines use when nobody plans; None where the constraints leave no such plan."""
    try:
        return solve(problem, "contiguous", limits=Limits(), workers=1).plan
    except NoPlanError:
        return None


def measure(
    problem: Problem, parts: Mapping[str, Trace], plans: Mapping[str, Plan], *, workers: int | None = None
) -> list[Measured]:
    """Replay each part through each plan, the contiguous plan first.

    Parameters
    ----------
    problem : Problem
        Says how tokens travel.
    parts : mapping of str to Trace
    plans : mapping of str to Plan
        Must fit the problem.
    workers : int, optional
        Threads; all available cores by default.
    """
    named = dict(plans)
    if "contiguous" not in named and (baseline := contiguous_plan(problem)) is not None:
        named = {"contiguous": baseline, **named}
    return [
        Measured(
            name=name,
            plan=plan,
            parts={
                part: replay_both(plan, trace, problem.topology, problem.objective, workers=workers)
                for part, trace in parts.items()
            },
        )
        for name, plan in named.items()
    ]


def figures_of(problem: Problem, measured: list[Measured], notes: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON-ready summary of `measured`; see `api.planning.summarise`."""
    tokens = {part: found.evaluation.tokens for part, found in measured[0].parts.items()} if measured else {}
    return {
        "objective": asdict(problem.objective),
        "load_cap": problem.constraints.load_cap,
        "layer_load_caps": {str(item.layer_id): item.load_cap for item in problem.constraints.layer_load_caps},
        "load_quantile": problem.constraints.load_quantile,
        "topology": problem.topology.name,
        "slots_per_gpu": problem.slots_per_gpu,
        "tokens": {"fit": tokens.get("fit"), "held_out": tokens.get("held_out")},
        "notes": list(notes),
        "plans": {item.name: _plan_figures(problem, item) for item in measured},
    }


def replay_both(
    plan: Plan, trace: Trace, topology: Topology, objective: Objective, *, workers: int | None = None
) -> PartFigures:
    """Replay a trace under the objective's execution, and under the other one with its usual replica policy.

    Parameters
    ----------
    plan : Plan
    trace : Trace
    topology : Topology
    objective : Objective
        Its ownership decides the home ranks under dispatch, whichever execution it names.
    workers : int, optional
    """
    own = evaluate(plan, trace, topology, **choices_of(objective), workers=workers)
    if objective.execution == "dispatch":
        context = evaluate(plan, trace, topology, execution="context_coherent", replica_policy="fair", workers=workers)
        return PartFigures(evaluation=own, context_coherent=context, dispatch=own)
    usual = replace(objective, execution="dispatch", replica_policy="same_node")
    dispatch = evaluate(plan, trace, topology, **choices_of(usual), workers=workers)
    return PartFigures(evaluation=own, context_coherent=own, dispatch=dispatch)


def part_figures(found: PartFigures) -> dict[str, Any]:
    """Return the JSON-ready figures of a plan on a part."""
    context, dispatch = found.context_coherent, found.dispatch
    return {name: getattr(found.evaluation, name) for name in FIGURES} | {
        "context_coherent": {name: getattr(context, name) for name in ("cross_gpu_fraction", "cross_node_fraction")},
        "dispatch": {name: getattr(dispatch, name) for name in ("ownership", "dedup", "replica_policy")}
        | {name: getattr(dispatch, name) for name in DISPATCH_FIGURES},
    }


def _plan_figures(problem: Problem, item: Measured) -> dict[str, Any]:
    plan = item.plan
    parts = {name: part_figures(found) for name, found in item.parts.items()}
    return {
        # The problem's own objective, whatever the plan was made for.
        "score": score(problem, plan).total,
        "bound": plan.bound,
        "gap": plan.gap,
        "termination": None if plan.termination is None else asdict(plan.termination),
        "warnings": list(plan.warnings),
        "fit": parts.get("fit"),
        "held_out": parts.get("held_out"),
        "expected_load": expected_load(problem, plan),
    }


def expected_load(problem: Problem, plan: Plan) -> dict[str, float]:
    """Return the load figures that follow from the profile, without any token."""
    load = (
        expected_gpu_load(problem, plan.replicas_on_gpu) * problem.topology.fair_share
    )  # share of each layer's load, (L, G)
    largest = load.max(axis=1) * problem.num_gpus  # mean over GPUs is 1 / G
    return {
        "imbalance_max_over_mean": float(largest.mean()),
        "balancedness_vllm": float(len(largest) / largest.sum()),
        "imbalance_trtllm": float((largest - 1).mean()),
    }

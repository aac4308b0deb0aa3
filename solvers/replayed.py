"""Replaying a trace through a plan, for both ways that tokens travel."""

from __future__ import annotations

from dataclasses import dataclass

from placement import Evaluation, Objective, Plan, SettledObjective, Topology, evaluate
from placement.problem.objective import Execution
from traces import Trace
from traces.support.content import ByContent

__all__ = ["PartFigures", "replay_as_planned", "replay_both"]


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
    plan: Plan, trace: Trace, topology: Topology, objective: SettledObjective, *, workers: int | None = None
) -> Evaluation:
    """Replay a trace under an objective, whatever the plan was made for.

    Parameters
    ----------
    plan : Plan
    trace : Trace
    topology : Topology
    objective : SettledObjective
    workers : int, optional
    """
    policy = objective.replica_policy
    if objective.execution == "context_coherent":
        return evaluate(plan, trace, topology, execution="context_coherent", replica_policy=policy, workers=workers)
    return evaluate(
        plan,
        trace,
        topology,
        execution="dispatch",
        dedup=objective.dedup,
        ownership=objective.ownership,
        replica_policy=policy,
        decode_batch=objective.decode_batch if objective.activated_weight else None,
        workers=workers,
    )


def replay_both(
    plan: Plan, trace: Trace, topology: Topology, objective: SettledObjective, *, workers: int | None = None
) -> PartFigures:
    """Replay a trace under the objective's execution, and under the other one with its usual choices."""
    other: Execution = "dispatch" if objective.execution == "context_coherent" else "context_coherent"
    usual = Objective(execution=other).settled(capped=False)
    own = replay_as_planned(plan, trace, topology, objective, workers=workers)
    found = replay_as_planned(plan, trace, topology, usual, workers=workers)
    context, home = (own, found) if other == "dispatch" else (found, own)
    return PartFigures(evaluation=own, context_coherent=context, dispatch=home)

"""What the searches of a front find, and the point that each makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, Score, Termination
from placement.cost.feasibility import load_cap_misses
from placement.plan.plan import replicas_on_gpu
from placement.survival.losses import lost_by_layer
from solvers.fronts.points import FrontPoint

__all__ = ["Candidate", "moved_replicas"]

Table = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A map that some search found, scored under the problem's own objective.

    Attributes
    ----------
    problem : Problem
        With the slots of the map.
    table : (L, S) int32
    score : Score
    provenance : dict
        Of the solution that it came with.
    limit : str or None
        What ended that search.
    """

    problem: Problem
    table: Table
    score: Score
    provenance: dict[str, Any]
    limit: Any

    @property
    def traffic(self) -> float:
        """Traffic term."""
        return self.score["traffic"].value

    @property
    def imbalance(self) -> float:
        """Largest load relative to the fair share, mean over layers."""
        return float(self.score.max_load.mean())

    @property
    def lost_experts(self) -> int | None:
        """Experts of a layer that the worst failure takes; None where nothing is asked to survive."""
        problem, rule = self.problem, self.problem.sizes.survival
        if rule is None:
            return None
        replicas = replicas_on_gpu(self.table, problem.num_experts, problem.num_gpus)
        return int(lost_by_layer(replicas, rule).max())

    @property
    def plan(self) -> Plan:
        """The map as a plan, scored, without provenance."""
        return self.problem.plan(self.table, score=self.score.total)

    def point(self, start: Plan | None, *, deterministic: bool) -> FrontPoint:
        """Return the plan and its figures; what moves is counted from `start`."""
        problem = self.problem
        misses = load_cap_misses(problem, self.table)
        plan = self.plan.replacing(
            warnings=tuple(misses),
            provenance=self.provenance,
            termination=Termination(
                reason="infeasible" if misses else "feasible",
                limit=self.limit,
                detail=misses[0] if misses else "",
                deterministic=deterministic,
            ),
        )
        redundant = problem.num_slots - problem.num_experts
        moved = None if start is None else int(moved_replicas(start, plan).sum())
        size, room = problem.expert_bytes, redundant * problem.num_layers
        if problem.replica_budget is not None:
            room = min(room, problem.replica_budget)
        return FrontPoint(
            plan=plan,
            score=self.score,
            traffic=self.traffic,
            imbalance=self.imbalance,
            worst_layer=float(self.score.max_load.max()),
            slots_per_gpu=problem.slots_per_gpu,
            redundant_experts=redundant,
            extra_bytes=None if size is None else size * room,
            moved_experts=moved,
            moved_bytes=None if size is None or moved is None else size * moved,
            lost_experts=self.lost_experts,
        )


def moved_replicas(start: Plan, plan: Plan) -> npt.NDArray[np.int64]:
    """Return the expert replicas that a GPU holds in `plan` but not in `start`, per layer, (L,)."""
    experts, gpus = plan.num_experts, plan.num_gpus
    before = replicas_on_gpu(start.physical_to_logical_map, experts, gpus) > 0
    after = replicas_on_gpu(plan.physical_to_logical_map, experts, gpus) > 0
    moved: npt.NDArray[np.int64] = (after & ~before).sum(axis=(1, 2))
    return moved

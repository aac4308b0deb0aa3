"""Problems, maps and plans to test with."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from placement import Constraints, Objective, Plan, Problem, Topology
from tests.builders.traces import profile_of
from traces import LoadCounts, Profile, Trace
from traces.synthetic import Synthetic

__all__ = ["dispatch", "plan_of", "problem_of", "random_table"]


def dispatch(**fields: Any) -> Objective:
    """Return a dispatch to any replica, with a weight on traffic and on the spread of loads only; `fields` differ."""
    usual = {"replica_policy": "fair", "imbalance_weight": 0.0, "load_spread_weight": 3.0}
    return Objective(**{"execution": "dispatch", **usual, "load_spread_tolerance": 0.0088, **fields})


def problem_of(
    tokens: Profile | Trace | LoadCounts | Synthetic,
    topology: Topology | str = "2x2",
    slots: int = 0,
    objective: Objective | None = None,
    constraints: Constraints | None = None,
    **fields: Any,
) -> Problem:
    """Return the problem on these tokens; what is not given is as in a bare `Problem`."""
    profile = tokens if isinstance(tokens, Profile) else profile_of(tokens)
    machine = Topology.parse(topology) if isinstance(topology, str) else topology
    return Problem(profile, machine, slots, objective or Objective(), constraints or Constraints(), **fields)


def random_table(
    rng: np.random.Generator,
    layers: int,
    experts: int,
    gpus: int,
    slots: int,
    spare: Literal["empty", "replicas", "either"] = "replicas",
) -> npt.NDArray[np.int64]:
    """Return a map (L, G * C) that holds every expert once.

    The spare slots stay empty, or get a random replica (``either``: or none) where the GPU does not hold the expert.
    """
    table = np.full((layers, gpus * slots), -1)
    least = -1 if spare == "either" else 0
    for row in table:
        row[rng.permutation(len(row))[:experts]] = rng.permutation(experts)
        for slot in np.flatnonzero(row < 0) if spare != "empty" else ():
            expert = rng.integers(least, experts)
            if expert not in row[slot // slots * slots : (slot // slots + 1) * slots]:
                row[slot] = expert
    return table


def plan_of(problem: Problem, table: npt.ArrayLike) -> Plan:
    """Return the plan of a problem's sizes with the map `table`, with nothing else recorded or checked against it."""
    return Plan.of(
        table,
        layer_ids=problem.profile.layer_ids,
        num_experts=problem.num_experts,
        gpus_per_node=problem.topology.gpus_per_node,
    )

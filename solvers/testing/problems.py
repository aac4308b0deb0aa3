"""Small problems of every kind, tiny ones whose plans can all be tried, and one that is hard."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from placement import Constraints, Group, LayerCap, Objective, Pin, Problem, Survive, Topology, score
from placement.cost.feasibility import broken_constraints
from placement.problem.objective import Dedup
from solvers.methods.registry import Solver
from traces import Profile, Trace

__all__ = ["brute_force", "hard_problem", "problems", "tiny_problems"]


@cache
def _profile(layers: int = 2, experts: int = 8) -> Profile:
    """Count tokens that follow one of four hidden teams most of the time, so that there is affinity and skew."""
    tokens, rng = 300, np.random.default_rng(7)
    teams = rng.integers(0, experts, (4, layers))
    team = rng.choice(4, tokens, p=[0.4, 0.3, 0.2, 0.1])
    first = np.where(rng.random((tokens, layers)) < 0.7, teams[team], rng.integers(0, experts, (tokens, layers)))
    second = (first + rng.integers(1, max(2, experts // 2), (tokens, layers))) % experts
    trace = Trace.of(np.stack([first, second], axis=2), num_experts=experts, seq_id=np.arange(tokens) // 10)
    return Profile.of(trace, workers=1, window_tokens=32)


def _dispatch(dedup: Dedup) -> Objective:
    return Objective(execution="dispatch", dedup=dedup)


def problems() -> dict[str, Problem]:
    """Return small problems of every kind, by name: executions, caps, replicas, pins, groups, uneven machines."""
    flat, two, one = Topology.of((4,)), Topology.of((2,)), _profile()
    tiers = Topology.parse("2x2")
    pins = (Pin(expert=0, gpu=3),)
    limited = Constraints(load_cap=1.3, pins=pins, forbidden=(Pin(expert=1, gpu=0, layer_id=1), Pin(expert=2, gpu=1)))
    capped = Objective(execution="dispatch")
    robust = Constraints(load_cap=1.3, load_quantile=0.9, load_groups="windows")
    return {
        "one_gpu": Problem(one, Topology.of((1,))),
        "flat_1x2": Problem(one, two),
        "flat_1x4": Problem(one, flat),
        "two_tiers": Problem(one, tiers),
        "uneven_nodes": Problem(_profile(experts=9), Topology.parse("2+1")),
        "not_divisible": Problem(_profile(experts=7), two),
        "one_layer": Problem(_profile(layers=1), two),
        "load_cap": Problem(one, two, constraints=Constraints(load_cap=1.1)),
        "layer_caps": Problem(one, two, constraints=_layer_cap(1.05)),
        "robust_cap": Problem(one, two, constraints=Constraints(load_cap=1.3, load_quantile=0.9)),
        "imbalance": Problem(one, two, objective=Objective(imbalance_weight=1.0)),
        "replicas": Problem(one, flat, 3, constraints=Constraints(load_cap=1.2)),
        "dispatch_none": Problem(one, tiers, objective=_dispatch("none")),
        "dispatch_gpu": Problem(one, flat, objective=_dispatch("gpu")),
        "dispatch_cap": Problem(
            one, tiers, objective=capped, constraints=Constraints(load_cap=1.1, forbidden=(Pin(expert=1, gpu=0),))
        ),
        "dispatch_robust": Problem(one, flat, 3, _dispatch("gpu"), robust),
        "dispatch_node": Problem(one, tiers, 3, objective=_dispatch("node")),
        "pins": Problem(one, tiers, constraints=limited),
        "pins_and_replicas": Problem(one, tiers, 3, constraints=Constraints(pins=(*pins, Pin(expert=0, gpu=1)))),
        "groups": Problem(one, tiers, constraints=Constraints(groups=(Group(experts=(0, 3, 5)),))),
        "uneven_slots": Problem(one, Topology.of((3,), slots=[2, 3, 3])),
        "speeds": Problem(one, Topology.of((2,), speed=[1.0, 2.0]), constraints=Constraints(load_cap=1.2)),
        "survive": Problem(one, tiers, 5, constraints=Constraints(load_cap=1.2, survive=Survive(unit="nodes"))),
        "survive_least": Problem(
            one, tiers, 3, _dispatch("none"), Constraints(survive=Survive(unit="nodes", lost=None))
        ),
    }


def tiny_problems() -> dict[str, Problem]:
    """Return problems whose plans with one replica of each expert can all be tried, by name."""
    two, small = Topology.of((2,)), _profile(3, 4)
    return {
        "flat": Problem(small, two),
        "cap": Problem(small, two, constraints=Constraints(load_cap=1.05)),
        "layer_cap": Problem(small, two, constraints=_layer_cap(1.05)),
        "slow_hop": Problem(small, Topology.of((1, 1), rank_cost_matrix=[[0, 0.5], [0.2, 0]])),
        "dispatch_none": Problem(small, two, objective=_dispatch("none")),
        "dispatch_gpu": Problem(_profile(2, 4), two, objective=_dispatch("gpu")),
        "pin": Problem(small, two, constraints=Constraints(pins=(Pin(expert=1, gpu=0),))),
        "not_divisible": Problem(_profile(3, 3), two),
        "speeds": Problem(small, Topology.of((2,), speed=[1.0, 1.5]), constraints=Constraints(load_cap=1.1)),
    }


def _layer_cap(cap: float) -> Constraints:
    return Constraints(layer_load_caps=(LayerCap(layer_id=1, load_cap=cap),))


def hard_problem(solver: Solver) -> Problem | None:
    """Return a problem that few solvers finish at once, or None if the solver takes none of them."""
    by_load = Objective(execution="dispatch", dedup="none", load_spread_weight=0.0)
    objectives = (Objective(load_spread_weight=0.0), _dispatch("none"), _dispatch("gpu"), by_load)
    hard = [Problem(_profile(4, 16), Topology.of((4,)), objective=objective) for objective in objectives]
    return next((problem for problem in hard if solver.supports(problem) is None), None)


@cache
def brute_force(problem: Problem) -> float:
    """Return the least score over all plans with one replica of each expert, by enumeration; of tiny problems only."""
    E, G, C = problem.num_experts, problem.num_gpus, problem.slots_per_gpu
    rows = []
    for gpus in itertools.product(range(G), repeat=E):
        slots = [[e for e in range(E) if gpus[e] == g] for g in range(G)]
        if all(len(held) <= C for held in slots):
            rows.append([e for held in slots for e in (*held, *[-1] * (C - len(held)))])
    tables = (np.array(table) for table in itertools.product(rows, repeat=problem.num_layers))
    return min(score(problem, table).total for table in tables if not broken_constraints(problem, table).found)

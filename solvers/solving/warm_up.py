"""Compiling before the clock starts: a first run on a machine would else spend its whole time limit on it."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np

from placement import Constraints, Objective, Problem, Topology
from placement.cost.bounds import HEAP_SHARE, Level, most_kept
from placement.cost.shares import home_variance
from solvers.bounds import raise_bound
from solvers.bounds.home_messages import HomeMessages
from solvers.bounds.layer_messages import LayerMessages
from solvers.methods.auto import EXACT, LARGE, Auto, has_time_for_bounds
from solvers.methods.registry import Solver, solver_from
from solvers.searching.limits import Limits
from solvers.searching.search import Search
from solvers.survival.exact import has_more_rules
from traces import LoadCounts, Profile, Provenance, Trace

__all__ = ["warm_up"]

COMPILED = ("auto", "annealing", "load_search", "set_partition")  # the others compile little, or nothing
WORK = 200  # trials: enough to enter every loop
BOUND_WORK = 1_000_000  # until triangles are looked for; more than the 40 steps of a tiny relaxation

_done: set[tuple[str, str, str, tuple[bool, ...]]] = set()


def warm_up(problem: Problem, method: Solver, seconds: float | None = None) -> None:
    """Have a method's loops compiled, or loaded, by a tiny problem of the same kind; once per process.

    Compiled loops are kept on disk, so this takes half a minute on a machine's first run and a second later; those of
    bounds are left out where `seconds` are too few for a bound.
    """
    objective = problem.objective
    if objective.execution == "context_coherent":
        none = np.zeros((1, HEAP_SHARE, HEAP_SHARE), np.int64)
        none.flags.writeable = False  # as the arrays of a profile, which numba tells apart
        most_kept(none, 1)
    if problem.sizes.survival is not None and has_more_rules(problem):
        import_module("solvers.survival.model")  # any method may have to repair a plan, on the clock
    counts_only = problem.profile.sample is None
    if method.name not in COMPILED:
        return
    auto = isinstance(method, Auto)
    # On large problems `auto` runs few of its methods, and libraries of the others take long to load.
    exact = [solver_from(name, options).supports(problem) is None for name, options in EXACT.items()] if auto else []
    bounds = auto and has_time_for_bounds(problem, seconds)
    takes = (problem.num_layers * problem.num_slots > LARGE, bounds, *exact)
    kind = (method.name, objective.execution, f"{objective.dedup}, counts {counts_only}", takes)
    if problem.home_moments is not None:  # the tiny problem has no replicas, which homes are about
        home_variance(problem, np.zeros((problem.num_layers, problem.num_experts, problem.num_gpus), np.int64))
    if kind in _done:
        return
    _done.add(kind)
    # More layers and experts than the exact methods take in an instant; then few, for sets of experts.
    objective = replace(objective, ownership="token")
    for layers, experts, topology in ((4, 24, "2x2"), (1, 4, "1x4")):
        tiny = _tiny(objective, layers, experts, Topology.parse(topology))
        if method.supports(tiny) is None:
            _run(method, tiny, problem, bounds=bounds)
    if method.name == "load_search" or (counts_only and auto):
        tiny = _of_counts(objective)
        loads = solver_from("load_search")
        if loads.supports(tiny) is None:
            _run(loads, tiny, problem)
    if bounds:
        tiny = _tiny(objective, 2, 4, Topology.parse("1x2"))
        raise_bound(tiny, Search(tiny, Limits(work=BOUND_WORK), workers=1))
        if objective.execution == "dispatch":  # none of them has replicas
            none = np.zeros((1, 1), np.int32)
            HomeMessages(none, num_experts=1, room=1)
            level = Level(cost=1.0, block_of_gpu=np.arange(3), blocks=3, room=2, fair=1 / 3)
            LayerMessages(none, none[0], 3, level, spare=3, drawn=none.astype(np.uint64), nearest=True).iterate(6)


def _run(method: Solver, tiny: Problem, like: Problem, *, bounds: bool = True) -> None:
    """Run a method; Ctrl-C, which ends such a search like any other, is for the caller, whose search did not begin."""
    search = Search(tiny, Limits(work=WORK), workers=1)
    if isinstance(method, Auto):
        method.run(tiny, search, like=like, bounds=bounds)
    else:
        method.run(tiny, search)
    if search.limit == "cancelled":
        raise KeyboardInterrupt


def _of_counts(objective: Objective) -> Problem:
    """Return a problem of counts, with a slot to spare on each GPU."""
    layer = np.arange(1, 5, dtype=np.float64)[np.newaxis]
    counts = LoadCounts(load=layer, layer_ids=np.zeros(1, np.int64), provenance=Provenance(), digest="sha256:")
    return Problem(Profile.of(counts), Topology.parse("1x2"), 3, objective=objective)


def _tiny(objective: Objective, layers: int, experts: int, topology: Topology) -> Problem:
    """Return a problem of a few tokens."""
    rng = np.random.default_rng(0)
    ids = rng.random((64, layers, experts)).argsort(axis=2)[:, :, :2].astype(np.int16)
    profile = Profile.of(Trace.of(ids, num_experts=experts), workers=1, window_tokens=16)
    return Problem(profile, topology, objective=objective, constraints=Constraints(load_cap=2.0))

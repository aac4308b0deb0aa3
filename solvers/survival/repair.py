"""Maps made to keep what has to survive, with as little change as the rule asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem, Termination
from placement.survival.rule import SurvivalRule
from solvers.plans import NoPlanError
from solvers.survival.effort import Effort
from solvers.survival.exact import UNCLOCKED, has_more_rules, kept_exactly
from solvers.survival.kernels import deal_layer, repair_layer, spread_layer
from solvers.survival.rule import alive_of

__all__ = ["alive_by_load", "kept_alive"]

Table = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def kept_alive(problem: Problem, table: npt.NDArray[np.integer[Any]], effort: Effort = UNCLOCKED) -> Table:
    """Return a map that survives what the problem says; the same one where it does, or where nothing is asked.

    Copies that are missing are put into empty slots, then in place of copies that are not needed, those with the least
    load; where that is not enough, other experts make room. Layers that can't be mended so, which happens only where a
    loss is allowed, are dealt out anew. Beside pins, exclusions and groups an exact model decides.

    Parameters
    ----------
    problem : Problem
    table : (L, S) integers
        Every expert is there; it keeps all other rules.
    effort : Effort
        What the exact model may cost.

    Raises
    ------
    NoPlanError
        If no way was found. Without pins, exclusions and groups the problem is checked, and this is a fault.
    OutOfEffortError
        If none was found in the effort allowed.
    """
    rule = problem.sizes.survival
    result = np.array(table, dtype=np.int32)
    if rule is None:
        return result
    shape = (problem.num_gpus, problem.slots_per_gpu)
    room = np.ascontiguousarray(problem.capacity, np.int64)
    for layer, row in enumerate(result):
        alive = alive_of(row, rule, problem.num_experts, problem.slots_per_gpu)
        load = np.ascontiguousarray(problem.relative_load[layer])
        if not alive.over[0]:
            continue
        if has_more_rules(problem):
            result[layer] = kept_exactly(problem, layer, row, effort)
            continue
        mended = row.copy().reshape(shape)
        if not repair_layer(mended, room, load, alive):
            mended = _dealt(problem, rule, load)
        result[layer] = mended.ravel()
    return result


def alive_by_load(problem: Problem, effort: Effort = UNCLOCKED) -> Table:
    """Return a map that survives what the problem says, all slots used, as even as copies dealt out by load make it.

    Parameters
    ----------
    problem : Problem
        Where something has to survive.
    effort : Effort
        What the exact model may cost.

    Returns
    -------
    (L, S) int32
        No GPU holds an expert twice. Beside pins, exclusions and groups: what is nearest to that.

    Raises
    ------
    NoPlanError
        If nothing keeps them all.
    OutOfEffortError
        If nothing was found in the effort allowed.
    """
    rule = problem.sizes.survival
    assert rule is not None
    experts, gpus, slots = problem.num_experts, problem.num_gpus, problem.slots_per_gpu
    room = np.ascontiguousarray(problem.capacity, np.int64)
    fair = np.ascontiguousarray(problem.topology.fair_share)
    result = np.empty((problem.num_layers, gpus * slots), np.int32)
    alone = _alone(rule, experts)
    for layer, load in enumerate(problem.relative_load):
        table = np.full((gpus, slots), -1, np.int32)
        copies = _copies(load, rule, int(alone.sum()), int(room.sum()), gpus)
        order = np.argsort(-load / copies, kind="stable")
        alive = alive_of(table.ravel(), rule, experts, slots)
        if not spread_layer(order, copies, alone, table, room, np.ascontiguousarray(load), fair, alive):
            table = _dealt(problem, rule, np.ascontiguousarray(load))
        result[layer] = table.ravel()
        if has_more_rules(problem):
            result[layer] = kept_exactly(problem, layer, result[layer], effort)
    return result


def _alone(rule: SurvivalRule, experts: int) -> npt.NDArray[np.int64]:
    """Return how many experts may be in a single domain, by domain, (D,): as many as are lost with it."""
    alone = np.minimum(rule.room, rule.lost)
    while alone.sum() > experts:
        alone[alone.argmax()] -= 1
    return alone


def _copies(load: Floats, rule: SurvivalRule, alone: int, slots: int, gpus: int) -> npt.NDArray[np.int64]:
    """Return how many copies each expert gets, (E,): enough to survive, but for so many of the coldest.

    What slots are left go, one by one, to the expert with the largest load per copy, as in EPLB.
    """
    experts = len(load)
    copies = np.full(experts, rule.failures + 1, dtype=np.int64)
    copies[np.argsort(load, kind="stable")[:alone]] = 1
    for _ in range(slots - int(copies.sum())):
        share = np.where(copies < gpus, load / copies, -1.0)
        busiest = int(share.argmax())
        if share[busiest] < 0:
            break
        copies[busiest] += 1
    return copies


def _dealt(problem: Problem, rule: SurvivalRule, load: Floats) -> Table:
    """Return a layer that is dealt out anew, (G, C)."""
    alone = _alone(rule, problem.num_experts)
    table = np.full((problem.num_gpus, problem.slots_per_gpu), -1, np.int32)
    alive = alive_of(table.ravel(), rule, problem.num_experts, problem.slots_per_gpu)
    room = np.ascontiguousarray(problem.capacity, np.int64)
    order = np.argsort(-load, kind="stable")
    if rule.failures > 1 or not deal_layer(order, alone, table, room, load, alive):
        detail = "No arrangement that survives what it should was found."
        raise NoPlanError(Termination(reason="no_plan", detail=detail))
    return table

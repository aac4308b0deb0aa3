"""Survival beside pins, exclusions and groups: an exact model of one layer, as paths alone can't keep them all.

Without groups and losses it is a flow of copies from experts over failure domains to GPUs, of which the linear
relaxation has whole solutions, so that the search for one ends at its root.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, hstack, identity, kron, vstack

from placement import Problem, Termination
from solvers.searching.solution import NoPlanError

__all__ = ["has_more_rules", "kept_exactly"]

LIMIT_S = 60.0  # after which a layer is given up; one of 256 experts on 64 GPUs takes seconds
KEPT, ADDED = 2.0, 1.0  # a copy that stays is worth more than one that is added costs: change as little as can be
INFEASIBLE = 2  # of SciPy's `milp`


def has_more_rules(problem: Problem) -> bool:
    """Whether other rules than survival and slots say where experts may be."""
    constraints = problem.constraints
    return bool(constraints.pins or constraints.forbidden or constraints.groups)


def kept_exactly(problem: Problem, layer: int, row: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
    """Return the row (S,) that survives, keeps pins, exclusions and groups, and is nearest to a given one.

    Parameters
    ----------
    problem : Problem
        Where something has to survive.
    layer : int
        Row of the layer.
    row : (S,) integers
        What is wanted; it may break any rule.

    Raises
    ------
    NoPlanError
        If there is no such row, which is proven, or none was found in time.
    """
    E, G = problem.num_experts, problem.num_gpus
    wanted = np.zeros((E, G), bool)
    slot = np.flatnonzero(row >= 0)
    wanted[row[slot], slot // problem.slots_per_gpu] = True
    constraints, more = _rules(problem, layer)
    size = E * G + more
    cost = np.zeros(size)
    cost[: E * G] = np.where(wanted, -KEPT, ADDED).ravel()
    low, high = np.zeros(size), np.ones(size)
    low[: E * G] = problem.pinned[layer].ravel()
    high[: E * G] = (problem.allowed[layer] | problem.pinned[layer]).ravel()
    found = milp(
        cost,
        integrality=np.ones(size),
        bounds=Bounds(low, high),
        constraints=constraints,
        options={"time_limit": LIMIT_S},
    )
    if found.x is None:
        how = "exists" if found.status == INFEASIBLE else "was found"
        layer_id = int(problem.profile.layer_ids[layer])
        what = f"No arrangement of layer {layer_id} that survives what it should and keeps pins, exclusions and groups"
        raise NoPlanError(Termination(reason="no_plan", detail=f"{what} {how}."))
    held = found.x[: E * G].reshape(E, G) > 0.5
    kept = np.full((G, problem.slots_per_gpu), -1, np.int32)
    for gpu, own in enumerate(held.T):
        here = np.flatnonzero(own)
        kept[gpu, : len(here)] = here
    return kept.ravel()


def _rules(problem: Problem, layer: int) -> tuple[list[LinearConstraint], int]:
    """Return the rules, and how many variables there are beside those of experts on GPUs.

    In this order: expert e on GPU g (E, G); e in domain d (E, D); where a loss is allowed, e goes with domain d (E, D);
    group on node (groups, N).
    """
    rule = problem.sizes.survival
    assert rule is not None
    E, G, D = problem.num_experts, problem.num_gpus, len(rule.room)
    layer_id, node = int(problem.profile.layer_ids[layer]), problem.topology.node_of_gpu
    groups = [group for group in problem.constraints.groups if group.layer_id in (None, layer_id)]
    alone = E * D if rule.lost else 0
    more = E * D + alone + len(groups) * problem.topology.num_nodes

    def block(matrix: Any, first: int) -> Any:
        """Return a matrix with columns for all variables, its own from the `first` beside those of (E, G) on."""
        left = E * G + first
        after = E * G + more - left - matrix.shape[1]
        return hstack([csr_array((matrix.shape[0], left)), matrix, csr_array((matrix.shape[0], after))], format="csr")

    in_domain = csr_array((np.arange(D)[:, None] == rule.domain).astype(float))  # (D, G)
    copies = block(kron(identity(E), in_domain, format="csr"), -E * G)  # of an expert in a domain
    each, ones = identity(E * D, format="csr"), csr_array(np.ones((1, D)))
    by_gpu = block(kron(csr_array(np.ones((1, E))), identity(G), format="csr"), -E * G)
    rules = [LinearConstraint(by_gpu, -np.inf, problem.capacity), LinearConstraint(block(each, 0) - copies, -np.inf, 0)]
    spread = block(kron(identity(E), ones, format="csr"), 0)
    if rule.lost:  # an expert that goes with a domain counts as if it were in one more
        rules.append(LinearConstraint(block(each, E * D) - copies, -np.inf, 0))
        lost = block(kron(csr_array(np.ones((1, E))), identity(D), format="csr"), E * D)
        rules.append(LinearConstraint(lost, -np.inf, rule.lost))
        spread = spread + block(kron(identity(E), ones, format="csr"), E * D)
    rules.append(LinearConstraint(spread, rule.failures + 1, np.inf))
    if groups:
        rules += _together([group.experts for group in groups], E, node, E * D + alone)
    return rules, more


def _together(
    groups: list[tuple[int, ...]], experts: int, node: npt.NDArray[np.integer[Any]], first: int
) -> list[LinearConstraint]:
    """Return the rules that a group has one node, and its experts are on no other."""
    gpus, nodes = len(node), int(node.max()) + 1
    size, begin = experts * gpus + first + len(groups) * nodes, experts * gpus + first
    one = np.zeros((len(groups), size))
    below = []
    for number, members in enumerate(groups):
        home = begin + number * nodes
        one[number, home : home + nodes] = 1
        item = (np.asarray(members)[:, None] * gpus + np.arange(gpus)).ravel()
        at = np.arange(len(item))
        signs = np.r_[np.ones(len(item)), -np.ones(len(item))]
        columns = np.r_[item, home + np.tile(node, len(members))]
        below.append(csr_array((signs, (np.r_[at, at], columns)), shape=(len(item), size)))
    return [LinearConstraint(csr_array(one), 1, 1), LinearConstraint(vstack(below), -np.inf, 0)]

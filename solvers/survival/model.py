"""The exact model of a layer that has to survive beside pins, exclusions and groups, for SciPy's `milp`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, hstack, identity, kron, vstack

from placement import Problem

__all__ = ["solved"]

MAX_NODES = 500  # of a layer, on any machine the same; without groups and losses the root is enough
KEPT, ADDED = 2.0, 1.0  # a copy that stays is worth more than one that is added costs: change as little as can be


def solved(problem: Problem, layer: int, held: npt.NDArray[np.bool_], left_s: float | None) -> Any:
    """Return SciPy's result for what is nearest to experts `held` (E, G); variables as in `_rules`.

    Parameters
    ----------
    problem : Problem
    layer : int
        Row of the layer.
    held : (E, G) bool
        Which expert is wanted on which GPU; it may break any rule.
    left_s : float or None
        Seconds that are left.
    """
    E, G = problem.num_experts, problem.num_gpus
    constraints, more = _rules(problem, layer)
    size = E * G + more
    cost = np.zeros(size)
    cost[: E * G] = np.where(held, -KEPT, ADDED).ravel()
    low, high = np.zeros(size), np.ones(size)
    low[: E * G] = problem.pinned[layer].ravel()
    high[: E * G] = (problem.allowed[layer] | problem.pinned[layer]).ravel()
    options: dict[str, Any] = {"node_limit": MAX_NODES}
    if left_s is not None:
        options["time_limit"] = left_s
    return milp(cost, integrality=np.ones(size), bounds=Bounds(low, high), constraints=constraints, options=options)


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

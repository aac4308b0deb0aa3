"""Group-limited routing, told from tokens: how many groups of consecutive experts the router chooses among.

DeepSeek-V3 deals its 256 experts into 8 groups, and a token's 8 experts are in 4 of them at most. Traces and profiles
don't say so, but tokens do: without such a limit, some token soon uses as many groups as its experts allow.

References
----------
DeepSeek-AI, "DeepSeek-V3 Technical Report", arXiv 2412.19437, section 2.1.2 (node-limited routing).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.methods.eplb.solver import Eplb

__all__ = ["grouped_eplb", "router_groups"]

TOKENS = (64, 2048)  # most routers without groups are told from the first few; chosen by trial
LEAST_ROWS = 1000  # tokens and layers; fewer may miss the combination of groups that proves there is no limit

Ids = npt.NDArray[np.integer[Any]]


def router_groups(topk_ids: Ids, num_experts: int) -> tuple[int, int] | None:
    """Return how many groups there are and how many of them a token uses at most, or None if there is no such limit.

    Parameters
    ----------
    topk_ids : (T, L, K) integers
        Experts of sampled tokens, -1 where missing.
    num_experts : int

    Returns
    -------
    (groups, limit) or None
        Of all divisions into equal groups of consecutive experts in which no token uses as many groups as it could
        (``limit < min(groups, K)``), the one that leaves a token the fewest experts to choose from; the coarsest of
        equal ones.
    """
    sizes = [size for size in range(2, num_experts // 2 + 1) if num_experts % size == 0]
    limits: dict[int, int] = {}
    rows: Ids = topk_ids[:0]
    for tokens in TOKENS:
        rows = topk_ids[:tokens].reshape(-1, topk_ids.shape[2])
        limits = {size: _most_groups(rows, size) for size in sizes}
        sizes = [size for size in sizes if limits[size] < min(num_experts // size, rows.shape[1])]
    if not sizes or (rows >= 0).any(axis=1).sum() < LEAST_ROWS:
        return None
    best = min(sizes, key=lambda size: (limits[size] * size, -size))
    return num_experts // best, limits[best]


def _most_groups(rows: Ids, size: int) -> int:
    """Return the most groups of consecutive experts that a row of ids (n, K) is in."""
    if not len(rows):
        return 0
    group = np.sort(np.where(rows < 0, -1, rows // size), axis=1)
    first = np.diff(group, axis=1, prepend=-1) != 0  # -1 is no group
    return int(first.sum(axis=1).max())


def grouped_eplb(problem: Problem) -> Eplb | None:
    """Return hierarchical EPLB with the router's groups; None without any, or where the nodes don't divide them."""
    sample = problem.profile.sample
    if sample is None or problem.topology.num_nodes == 1:
        return None
    found = router_groups(sample.topk_ids, problem.num_experts)
    if found is None:
        return None
    solver = Eplb(policy="hierarchical", num_groups=found[0])
    return solver if solver.supports(problem) is None else None

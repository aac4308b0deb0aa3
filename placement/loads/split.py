"""The best split of each expert's tokens over its replicas: the least largest GPU load that a map with replicas allows.

References
----------
The linear program is that of DeepSeek's LPLB (https://github.com/deepseek-ai/LPLB), per layer and from expected loads;
``docs/problem.md``, "Splitting tokens over replicas".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.plan.plan import replicas_on_gpu
from placement.problem.problem import Problem
from traces import InputError

__all__ = ["TokenSplit", "least_max_load", "optimal_split"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenSplit:
    """Shares of the experts' tokens.

    Attributes
    ----------
    share : (L, E, G) float64
        Share of expert e's tokens that GPU g serves; 0 where it has no replica, rows over g sum to 1.
    max_load : (L,) float64
        Largest GPU load of each layer, relative to the GPU's fair share; 1 is balanced. No split has a smaller one.
    """

    share: Array
    max_load: Array


def optimal_split(problem: Problem, table: npt.NDArray[np.integer[Any]]) -> TokenSplit:
    """Split the problem's loads over the replicas of a map, so that the largest GPU load of each layer is least.

    Parameters
    ----------
    problem : Problem
        Its profile has the loads, its topology the fair shares. Replica policy and ownership do not matter.
    table : (L, S) integers
        Physical-to-logical map with every expert present; -1 empty.

    Returns
    -------
    TokenSplit

    Raises
    ------
    InputError
        If the map is not one of the problem.
    """
    table = np.asarray(table)
    shape = (problem.num_layers, problem.num_slots)
    if (
        table.shape != shape
        or table.dtype.kind not in "iu"
        or (table < -1).any()
        or (table >= problem.num_experts).any()
    ):
        detail = f"Expected integers of shape (layers, slots) = {shape}, each -1 to {problem.num_experts - 1}."
        raise InputError.of("map_shape", "/table", detail, "Give a map of this problem.")
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
    if (missing := np.argwhere(replicas.sum(axis=2) == 0)).size:
        layer, expert = missing[0].tolist()
        detail = f"Expert {expert} of layer {problem.profile.layer_ids[layer]} has no slot."
        raise InputError.of("expert_missing", f"/table/{layer}", detail, "Every expert needs a slot in every layer.")
    fair = problem.topology.fair_share
    found = [_split_layer(load, here > 0, fair) for load, here in zip(problem.profile.load, replicas, strict=True)]
    return TokenSplit(share=np.stack([share for share, _ in found]), max_load=np.array([load for _, load in found]))


def least_max_load(load: Array, table: npt.NDArray[np.integer[Any]], fair: Array) -> Array:
    """Return the largest relative GPU load of each layer under the best split, (L,); 0 in layers without load.

    Parameters
    ----------
    load : (L, E) float64
    table : (L, S) integers
        Every expert present.
    fair : (G,) float64
        Share of a layer's load that is fair for each GPU; sums to 1.
    """
    least = np.zeros(len(load))
    for layer, row in enumerate(load):
        replicas = replicas_on_gpu(table[layer : layer + 1], len(row), len(fair))[0]
        least[layer] = _split_layer(row, replicas > 0, fair)[1]
    return least


def _split_layer(load: Array, here: npt.NDArray[np.bool_], fair: Array) -> tuple[Array, float]:
    """Return the best shares (E, G), and the largest relative load that they give."""
    share: Array = here / here.sum(axis=1, keepdims=True)
    if not load.any():
        return share, 0.0
    relative = load / load.sum()
    # What is left to decide: experts with load on several GPUs.
    open_ = np.flatnonzero((here.sum(axis=1) > 1) & (relative > 0))
    if len(open_):
        fixed = relative @ np.where(np.isin(np.arange(len(load)), open_)[:, None], 0.0, share)
        share[open_] = _solve(relative[open_], here[open_], fixed, fair)
    return share, float(((relative @ share) / fair).max())


def _solve(load: Array, here: npt.NDArray[np.bool_], fixed: Array, fair: Array) -> Array:
    """Solve ``min z: fixed[g] + sum_e y[e,g] <= z fair[g], sum_g y[e,g] = load[e], y >= 0``; return ``y / load``.

    Parameters
    ----------
    load : (M,) float64
        Positive.
    here : (M, G) bool
    fixed, fair : (G,) float64
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    experts, gpus = here.shape
    expert, gpu = np.nonzero(here)
    flows = np.arange(len(expert))
    # In units of an equal share, so that all numbers are near 1. The last variable is z.
    ones = np.ones(len(flows))
    upper = coo_array(
        (np.r_[ones, -fair * gpus], (np.r_[gpu, np.arange(gpus)], np.r_[flows, np.full(gpus, len(flows))])),
        shape=(gpus, len(flows) + 1),
    )
    equal = coo_array((ones, (expert, flows)), shape=(experts, len(flows) + 1))
    found = linprog(
        np.r_[0 * ones, 1.0],
        A_ub=upper.tocsr(),
        b_ub=-fixed * gpus,
        A_eq=equal.tocsr(),
        b_eq=load * gpus,
        method="highs",
    )
    if found.x is None:  # it is feasible and bounded
        raise RuntimeError(f"The split of tokens over replicas was not found: {found.message}")
    share = np.zeros(here.shape)
    share[expert, gpu] = np.maximum(found.x[:-1], 0.0)
    total = share.sum(axis=1, keepdims=True)
    # Where rounding leaves nothing of a tiny load: equal shares.
    equally = here / here.sum(axis=1, keepdims=True)
    split: Array = np.divide(share, total, out=equally, where=total > 0)
    return split

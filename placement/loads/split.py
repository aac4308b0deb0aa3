"""The best split of each expert's tokens over its replicas: the least largest GPU load that a map with replicas allows.

References
----------
The linear program is that of DeepSeek's LPLB (https://github.com/deepseek-ai/LPLB), per layer and from expected loads;
``docs/problem.md``, "Splitting tokens over replicas".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.plan.plan import replicas_on_gpu

__all__ = ["best_split_max_load", "split_layer"]

Array = npt.NDArray[np.float64]


def best_split_max_load(load: Array, table: npt.NDArray[np.integer[Any]], fair: Array) -> Array:
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
        least[layer] = split_layer(row, replicas > 0, fair)[1]
    return least


def split_layer(load: Array, here: npt.NDArray[np.bool_], fair: Array) -> tuple[Array, float]:
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

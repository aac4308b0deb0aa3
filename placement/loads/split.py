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

__all__ = ["best_split", "best_split_max_load"]

# Of one program: a library's call costs as much as two layers of 64 GPUs, and a large program more than its parts.
# 58 layers of 256 experts, 320 slots on 64 GPUs: .19 s one by one, .06 s in sixteens, .09 s all at once.
LAYERS_TOGETHER = 16

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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
    for first in range(0, len(load), LAYERS_TOGETHER):
        some = slice(first, first + LAYERS_TOGETHER)
        replicas = replicas_on_gpu(table[some], load.shape[1], len(fair))
        least[some] = _split(load[some], replicas > 0, fair)[1]
    return least


def best_split(load: Array, here: Bools, fair: Array) -> tuple[Array, Array]:
    """Return the best shares, (L, E, G), and the largest relative load of each layer that they give, (L,).

    Parameters
    ----------
    load : (L, E) float64
    here : (L, E, G) bool
        Where each expert has replicas: somewhere.
    fair : (G,) float64
    """
    steps = range(0, len(load), LAYERS_TOGETHER)
    found = [_split(load[i : i + LAYERS_TOGETHER], here[i : i + LAYERS_TOGETHER], fair) for i in steps]
    return np.concatenate([share for share, _ in found]), np.concatenate([most for _, most in found])


def _split(load: Array, here: Bools, fair: Array) -> tuple[Array, Array]:
    """Split a few layers' tokens by one program."""
    total, copies = load.sum(axis=1, keepdims=True), here.sum(axis=2)
    share: Array = here / copies[:, :, None]
    relative = np.divide(load, total, out=np.zeros(load.shape), where=total > 0)
    # What is left to decide: experts with load on several GPUs.
    open_ = (copies > 1) & (relative > 0)
    if open_.any():
        some = open_.any(axis=1)
        fixed = np.einsum("le,leg->lg", np.where(open_, 0.0, relative), share)
        share[open_] = _solve(
            relative[open_], here[open_], (np.cumsum(some) - 1)[open_.nonzero()[0]], fixed[some], fair
        )
    return share, (np.einsum("le,leg->lg", relative, share) / fair).max(axis=1)


def _solve(load: Array, here: Bools, layer: npt.NDArray[np.integer[Any]], fixed: Array, fair: Array) -> Array:
    """Solve, for the layers l of experts e: minimise ``sum_l z[l]``, as layers share nothing.

    ``fixed[l,g] + sum_e y[e,g] <= z[l] fair[g], sum_g y[e,g] = load[e], y >= 0``; returned is ``y / load``.

    Parameters
    ----------
    load : (M,) float64
        Positive.
    here : (M, G) bool
    layer : (M,) integers
        Of 0 to n - 1.
    fixed : (n, G) float64
    fair : (G,) float64
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    (layers, gpus), experts = fixed.shape, len(load)
    expert, gpu = np.nonzero(here)
    flows, places = len(expert), layers * gpus
    # In units of an equal share, so that all numbers are near 1. The last variables are z.
    ones = np.ones(flows)
    row = np.r_[layer[expert] * gpus + gpu, np.arange(places)]
    column = np.r_[np.arange(flows), flows + np.repeat(np.arange(layers), gpus)]
    upper = coo_array((np.r_[ones, -np.tile(fair * gpus, layers)], (row, column)), shape=(places, flows + layers))
    equal = coo_array((ones, (expert, np.arange(flows))), shape=(experts, flows + layers))
    found = linprog(
        np.r_[0 * ones, np.ones(layers)],
        A_ub=upper.tocsr(),
        b_ub=-fixed.ravel() * gpus,
        A_eq=equal.tocsr(),
        b_eq=load * gpus,
        method="highs",
    )
    if found.x is None:  # it is feasible and bounded
        raise RuntimeError(f"The split of tokens over replicas was not found: {found.message}")
    share = np.zeros(here.shape)
    share[expert, gpu] = np.maximum(found.x[:flows], 0.0)
    total = share.sum(axis=1, keepdims=True)
    # Where rounding leaves nothing of a tiny load: equal shares.
    equally = here / here.sum(axis=1, keepdims=True)
    split: Array = np.divide(share, total, out=equally, where=total > 0)
    return split

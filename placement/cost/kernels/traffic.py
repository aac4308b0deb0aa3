"""Traffic of whole chains of layers, from affinity counts and the replicas' shares."""
# numba's decorators are untyped.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["pair_traffic"]


@numba.njit(nogil=True, cache=True)
def pair_traffic(
    affinity: npt.NDArray[np.integer[Any]],
    share: npt.NDArray[np.float64],
    hop: npt.NDArray[np.float64],
    by_layer: npt.NDArray[np.float64],
) -> None:
    """Write ``sum_ij A[l,i,j] sum_gh Q[l,i,g] Q[l+1,j,h] d[g,h]`` to `by_layer`, (L-1,).

    Shares are sparse: the work is in proportion to ``E * E`` times the replicas of an expert, not to ``G``.
    """
    layers, E, G = share.shape
    reach = np.empty((G, E))
    for layer in range(layers - 1):
        reach[:] = 0.0
        for j in range(E):
            for h in range(G):
                part = share[layer + 1, j, h]
                if part > 0.0:
                    for g in range(G):
                        reach[g, j] += part * hop[g, h]
        total = 0.0
        for i in range(E):
            for g in range(G):
                part = share[layer, i, g]
                if part > 0.0:
                    row = 0.0
                    for j in range(E):
                        row += affinity[layer, i, j] * reach[g, j]
                    total += part * row
        by_layer[layer] = total

"""Prices of a place in each block, at which experts ask for about as many as there are."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["home_prices"]

Floats = npt.NDArray[np.float64]
SWEEPS = 5  # over the blocks; chosen by trial


@numba.njit(nogil=True, cache=True)
def home_prices(called: Floats, room: int) -> Floats:
    """Return prices of a place in each home's block, (B,).

    Experts are in ``room`` places of a block at most. So whatever the prices, assignments that are served at home are
    at most what is called there, less the price of each place that is taken, and ``room`` times the prices. Block by
    block, the price is set to where the experts that would rather be there fill their even part of the places.

    Parameters
    ----------
    called : (E, B) float64
        Assignments that each home calls.
    room : int
        Places of a block.
    """
    experts, blocks = called.shape
    prices, rather = np.zeros(blocks), np.empty(experts)
    even = min(room, -(-experts // blocks))
    if even >= experts or blocks == 1:
        return prices
    for _ in range(SWEEPS):
        for home in range(blocks):
            for e in range(experts):
                elsewhere = -np.inf
                for block in range(blocks):
                    if block != home:
                        elsewhere = max(elsewhere, called[e, block] - prices[block])
                rather[e] = called[e, home] - elsewhere
            prices[home] = max(0.0, np.sort(rather)[experts - 1 - even])
    return prices

"""Tokens give shares to their experts, as evenly as they can."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["give_shares"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def give_shares(ids: Ints, homes: Ints, room: int, shares: Floats) -> None:
    """Add each token's shares to those of its experts, by home block.

    Parameters
    ----------
    ids : (n, K) integers
        -1 for none.
    homes : (n,) integers
        Block of each token's home.
    room : int
        A token with more experts than this gives ``1 / room`` to each, any other 1 to the one that has fewest so far.
    shares : (blocks, E) float64
        Added to.
    """
    tokens, top_k = ids.shape
    for token in range(tokens):
        mine = shares[homes[token]]
        least, used = -1, 0
        for k in range(top_k):
            expert = ids[token, k]
            if expert >= 0:
                used += 1
                if least < 0 or mine[expert] < mine[least]:
                    least = expert
        if used > room:
            for k in range(top_k):
                if ids[token, k] >= 0:
                    mine[ids[token, k]] += 1.0 / room
        elif used:
            mine[least] += 1.0

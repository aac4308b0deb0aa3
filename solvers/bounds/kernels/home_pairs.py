"""Tokens choose the two of their experts that are least in one block."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["choose_pairs"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def choose_pairs(ids: Ints, together: Floats, pairs: Floats, single: Floats) -> None:
    """Count for each token the pair, or the expert, that is least in the block of the anchor.

    Parameters
    ----------
    ids : (n, K) integers
        -1 for none.
    together : (n, n) float64
        Co-location; place E is the anchor.
    pairs : (E, E) float64
        Added to, both halves.
    single : (E,) float64
        Added to.
    """
    tokens, top_k = ids.shape
    anchor = len(single)
    for token in range(tokens):
        least, first, second = np.inf, -1, -1
        for k in range(top_k):
            i = ids[token, k]
            if i < 0:
                continue
            if together[anchor, i] < least:
                least, first, second = together[anchor, i], i, -1
            for other in range(k):
                j = ids[token, other]
                if j >= 0:
                    both = (together[i, j] + together[anchor, i] + together[anchor, j] - 1.0) / 2.0
                    if both < least:
                        least, first, second = both, i, j
        if second >= 0:
            pairs[first, second] += 1.0
            pairs[second, first] += 1.0
        elif first >= 0:
            single[first] += 1.0

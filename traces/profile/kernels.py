"""Compiled counting loops. They release the GIL and touch one layer's matrix each, so threads share the work by layer.

Ids must be in range (see `traces.rules`): the loops do not look again. The loops are compiled for each
top-k, as a constant trip count lets the compiler unroll them: two to three times as fast. They take whole arrays and
the layer: a layer's part of an array is contiguous or not, and they would be compiled for either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["count_by_source", "count_coactivation", "count_load", "count_pairs"]

IntArray = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.integer[Any]]


_compiled: dict[tuple[str, int], Callable[..., None]] = {}
_compiling = threading.Lock()


def _pair_loop(top_k: int) -> Callable[..., None]:
    @numba.njit(nogil=True, cache=True)
    def loop(ids: IntArray, layer: int, distance: int, out: Counts) -> None:
        # Plain three-axis indexing: numba vectorises the address arithmetic better than through row views.
        for t in range(ids.shape[0]):
            for a in range(top_k):
                i = ids[t, layer, a]
                if i < 0:
                    continue
                for b in range(top_k):
                    j = ids[t, layer + distance, b]
                    if j >= 0:
                        out[i, j] += 1

    compiled: Callable[..., None] = loop
    return compiled


def _together_loop(top_k: int) -> Callable[..., None]:
    @numba.njit(nogil=True, cache=True)
    def loop(ids: IntArray, layer: int, out: Counts) -> None:
        for t in range(ids.shape[0]):
            for a in range(top_k):
                i = ids[t, layer, a]
                if i < 0:
                    continue
                for b in range(a + 1, top_k):
                    j = ids[t, layer, b]
                    if j >= 0:
                        out[i, j] += 1

    compiled: Callable[..., None] = loop
    return compiled


def _load_loop(top_k: int) -> Callable[..., None]:
    @numba.njit(nogil=True, cache=True)
    def loop(ids: IntArray, layer: int, stops: npt.NDArray[np.int64], out: Counts) -> None:
        start = 0
        for w in range(len(stops)):
            for t in range(start, stops[w]):
                for a in range(top_k):
                    i = ids[t, layer, a]
                    if i >= 0:
                        out[w, layer, i] += 1
            start = stops[w]

    compiled: Callable[..., None] = loop
    return compiled


def _loop(build: Callable[[int], Callable[..., None]], top_k: int) -> Callable[..., None]:
    """Return the loop that `build` makes for this top-k, made once."""
    key = (build.__name__, top_k)
    with _compiling:
        if key not in _compiled:
            _compiled[key] = build(top_k)
        return _compiled[key]


def count_pairs(ids: IntArray, layer: int, distance: int, out: Counts) -> None:
    """Add to ``out[i, j]`` the tokens with expert i in `layer` and j in ``layer + distance``.

    Parameters
    ----------
    ids : (T, L, K) integers
        Negative entries are skipped.
    layer, distance : int
    out : (E, E) integers
        Incremented in place. uint32 is fastest, as twice as many counts fit the nearest cache.
    """
    _loop(_pair_loop, ids.shape[2])(ids, layer, distance, out)


def count_coactivation(ids: IntArray, layer: int, out: Counts) -> None:
    """Add to ``out[i, j]`` each pair of experts i, j of a token in `layer`, listed first to last.

    The caller symmetrises: ``out + out.T``. As an expert is not paired with itself, a count on the diagonal means that
    a token lists an expert twice.
    """
    _loop(_together_loop, ids.shape[2])(ids, layer, out)


def count_load(ids: IntArray, layer: int, stops: npt.NDArray[np.int64], out: Counts) -> None:
    """Add to ``out[w, layer, e]`` the tokens of window w that use expert e; it ends before token ``stops[w]``."""
    _loop(_load_loop, ids.shape[2])(ids, layer, stops, out)


@numba.njit(nogil=True, cache=True)
def count_by_source(ids: IntArray, layer: int, source: IntArray, out: Counts) -> None:
    """Add to ``out[r, layer, e]`` the tokens of source rank r that use expert e; unknown ranks (-1) are skipped."""
    for t in range(ids.shape[0]):
        r = source[t]
        if r < 0:
            continue
        for a in range(ids.shape[2]):
            i = ids[t, layer, a]
            if i >= 0:
                out[r, layer, i] += 1

"""Loads of engines' dumps: folded from physical to logical experts, and cut to the MoE layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.formats.hints import Hints
from traces.formats.shared.count_rows import counts_of_rows

__all__ = ["fold_load", "loads_of"]


def fold_load(
    physical: npt.NDArray[np.int64], logical: npt.NDArray[np.int64], num_experts: int
) -> npt.NDArray[np.float64]:
    """Sum (layers, P) loads of physical experts to (layers, E) of logical ones, by the map (layers, P)."""
    index = logical + num_experts * np.arange(len(logical))[:, np.newaxis]
    folded = np.bincount(index.ravel(), physical.ravel(), num_experts * len(logical))
    return folded.reshape(len(logical), num_experts).astype(np.float64)


def loads_of(
    bundle: Bundle,
    hints: Hints,
    name: str,
    load: npt.NDArray[np.float64],
    notes: tuple[str, ...],
    *,
    logical: Callable[[npt.NDArray[np.int64]], int] | None = None,
) -> LoadCounts:
    """Return the MoE layers of loads (layers of the model, at least E).

    Parameters
    ----------
    bundle : Bundle
    hints : Hints
    name : str
        Of the format.
    load : float64
    notes : tuple of str
    logical : callable, optional
        Number of experts of the MoE layers that are passed to it; by default, all columns.

    Raises
    ------
    InputError
        If the caller and the content disagree, or no layer has counts.
    """
    rows = np.flatnonzero(load.any(axis=1))
    experts = load.shape[1] if logical is None or not rows.size else logical(rows)
    return counts_of_rows(bundle, hints, name, load, notes, usual="model", num_experts=experts)

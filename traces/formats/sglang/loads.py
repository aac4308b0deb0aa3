"""Loads of engines' dumps: folded from physical to logical experts, and cut to the MoE layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.formats.reader import Hints
from traces.formats.shared.model_layers import axes_of_rows, moe_rows
from traces.provenance import Provenance
from traces.support.errors import InputError, Violations

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
        If the layers are ambiguous, or the caller and the content disagree.
    """
    if not np.isfinite(load).all() or load.min(initial=0) < 0:
        raise InputError.of("load_not_finite", bundle.name, "A load is NaN, infinite or negative.", "Record it again.")
    rows, layer_notes = moe_rows(bundle.name, hints, np.asarray(load.any(axis=1)), certain=True)
    experts = load.shape[1] if logical is None else logical(rows)
    axes = axes_of_rows(bundle, hints, rows, largest_id=-1, num_experts=experts)
    kept = np.ascontiguousarray(load[rows, :experts])
    found = Violations()
    checks.check_layout(found, axes.layer_ids, axes.num_experts, 1)
    checks.check_load_range(found, kept, f"{bundle.name}#layer ")
    found.raise_if_any()
    kept.flags.writeable = False
    return LoadCounts(
        load=kept,
        layer_ids=axes.layer_ids,
        provenance=Provenance(source=bundle.name, format=name, notes=(*notes, *layer_notes, *axes.notes)),
        digest=f"sha256:{bundle.sha256()}",
    )

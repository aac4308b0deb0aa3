"""Which layers the rows of a matrix of counts are: all layers of the model, or MoE layers only."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.shared.counts import checked_counts
from traces.formats.shared.model_layers import moe_rows

__all__ = ["counts_of_rows"]

Usual = Literal["model", "moe"]


def counts_of_rows(
    file: TraceFile | Bundle,
    hints: Hints,
    name: str,
    load: npt.NDArray[np.float64],
    notes: tuple[str, ...] = (),
    *,
    usual: Usual,
    num_experts: int | None = None,
) -> LoadCounts:
    """Return the counts in a matrix whose rows are layers, by what the caller and the model say.

    Parameters
    ----------
    file : TraceFile or Bundle
    hints : Hints
        `layer_ids` and `model` decide. As many of either as there are rows name them in order; else they pick the MoE
        layers among rows of all layers of the model.
    name : str
        Of the format.
    load : (rows, at least E) float64
    notes : tuple of str
    usual : {"model", "moe"}
        What the rows of this format are, where both fit: all layers of the model, or MoE layers only.
    num_experts : int, optional
        Experts per layer, of which the columns may be more; all columns by default.

    Raises
    ------
    InputError
        If there are counts in a layer that is no MoE layer, or the number of rows fits nothing.
    """
    load = np.asarray(load, dtype=np.float64)
    count, model = len(load), hints.model
    experts = load.shape[1] if num_experts is None else num_experts
    whole = usual == "model"
    if hints.layer_ids is not None:
        whole = usual == "model" or np.size(np.asarray(hints.layer_ids)) < count
    elif model is not None:
        by_rows = count in (model.num_layers, *(() if not model.mtp_layers else (model.mtp_layers[-1] + 1,)))
        ordinal = count in (len(model.moe_layers), len(model.all_moe_layers))
        whole = by_rows and (not ordinal or usual == "model" or _fits(load, model.of_rows(count, file.name)))
        whole = whole or (usual == "model" and not ordinal)
    if not whole or (hints.layer_ids is None and model is None):
        axes = Axes.settle(
            file,
            hints,
            count,
            lambda: -1,
            layer_ids=np.arange(count) if usual == "model" and hints.layer_ids is None and model is None else None,
            num_experts=experts,
        )
        rows = np.arange(count)
    else:
        rows, found = moe_rows(file.name, hints, np.asarray(load.any(axis=1)), certain=False)
        notes = (*notes, *found, f"Of {count} rows, one per layer of the model, {len(rows)} are MoE layers.")
        named = replace(hints, layer_ids=None)
        axes = Axes.settle(file, named, len(rows), lambda: -1, layer_ids=rows, num_experts=experts)
    kept = np.ascontiguousarray(load[rows, :experts])
    digest = f"sha256:{file.sha256()}"
    return checked_counts(file.name, name, axes, kept, digest, notes=notes, by_hand=usual == "moe")


def _fits(load: npt.NDArray[np.float64], moe: npt.NDArray[np.int64]) -> bool:
    """Whether the rows that are dense layers, if there are any, have no counts."""
    dense = np.setdiff1d(np.arange(len(load)), moe)
    return len(dense) > 0 and not load[dense].any()

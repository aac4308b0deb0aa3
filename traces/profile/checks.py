"""What the arrays of a profile must be, and the error for what counts can't give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from traces.profile.sequences import SEQUENCE_BUCKETS
from traces.rules import check_load_range
from traces.support.errors import InputError, Violations

__all__ = ["Counts", "check_load", "check_matrices", "counts_only"]

Counts = npt.NDArray[np.int64]


def check_load(
    found: Violations, load: npt.NDArray[np.float64], layer_ids: npt.NDArray[np.int64], experts: int
) -> None:
    """Check loads (L, E): their shape, that they are finite, and that every layer has some."""
    if load.shape != (len(layer_ids), experts):
        found.add("load_shape", "/load", f"Load has shape {load.shape}, not (L, E).", "Give one row per layer.")
    elif not np.isfinite(load).all() or (load < 0).any():
        found.add("load_not_finite", "/load", "Load holds NaN, infinite or negative values.", "Correct the counts.")
    elif (empty := np.flatnonzero(~load.any(axis=1))).size:
        found.add(
            "zero_tokens",
            f"/load/{empty[0]}",
            f"No token was routed in layer(s) {layer_ids[empty].tolist()}.",
            "Record tokens in every layer, or leave the layer out.",
        )
    else:
        check_load_range(found, load, "/load/")


def check_matrices(
    found: Violations,
    layers: int,
    experts: int,
    *,
    affinity: Counts | None,
    coactivation: Counts | None,
    distant: Mapping[int, Counts],
    source_load: Counts | None,
    sequence_load: Counts | None,
) -> None:
    """Check shapes and types of the matrices of a profile; see `Profile` for what each is."""
    pairs: list[tuple[str, Counts | None, int]] = [
        ("affinity", affinity, layers - 1),
        ("coactivation", coactivation, layers),
        *((f"distant/{distance}", counts, layers - distance) for distance, counts in distant.items()),
    ]
    expected = [(name, array, (length, experts, experts)) for name, array, length in pairs if array is not None]
    if source_load is not None:
        expected.append(("source_load", source_load, (len(source_load), layers, experts)))
    if sequence_load is not None:
        expected.append(("sequence_load", sequence_load, (SEQUENCE_BUCKETS, layers, experts)))
    for name, array, shape in expected:
        if array.shape != shape or array.dtype != np.int64:
            detail = f"Expected int64 {shape}; got {array.dtype} {array.shape}."
            found.add("matrix_shape", f"/{name}", detail, "Profile the trace again.")


def counts_only(what: str) -> InputError:
    """Return the error for a statistic that counts can't give."""
    return InputError.of(
        "counts_only",
        "/profile",
        f"{what} needs tokens, but the profile was made from counts per expert.",
        "Record a trace with token identity (topk_ids), or choose an objective that needs loads only.",
    )

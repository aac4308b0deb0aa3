"""MoETuner's statistics as an `.npz`: ``P`` (L, E), tokens per expert, and ``R`` (L-1, E, E), routes to the next layer.

``R`` holds pairs (their sums over the next layer's experts are proportional to ``P``), or probabilities given the first
expert (rows that sum to 1); which of the two is found from the numbers. There is no token identity: loads and affinity.

References
----------
Go and Mahajan, "MoETuner: Optimized Mixture of Expert Serving with Balanced Expert Placement and Token Routing", 2025.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.archive import open_archive
from traces.decoding.files import TraceFile
from traces.decoding.npz_keys import STATISTICS, is_foreign, npz_keys
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.counts import checked_counts
from traces.formats.shared.matrices import MATRIX_BYTES, MAX_LAYERS
from traces.support.errors import InputError, Violations

__all__ = ["READER"]

TOLERANCE = 1e-3  # of sums that should agree; files are often float32, or rounded
PAIR_TOTAL = float(1 << 40)  # pairs per layer that shares are scaled to; rounding them to integers is then 1e-12
MOST_PAIRS = float(1 << 52)


def open_moetuner(file: TraceFile, hints: Hints) -> LoadCounts:
    """Read both matrices."""
    with file.open() as stream, open_archive(stream, file.name) as archive:
        if absent := sorted(STATISTICS - set(archive.keys)):
            raise InputError.of("load_shape", file.name, f"There is no {absent[0]}.", "Save P and R.")
        parts = {name: archive.stream(name) for name in ("P", "R")}
        shapes = {name: part.header.shape for name, part in parts.items()}
        layers, experts = shapes["P"] if len(shapes["P"]) == 2 else (0, 0)
        if not 1 <= layers <= MAX_LAYERS or shapes["R"] != (layers - 1, experts, experts):
            raise InputError.of(
                "load_shape",
                file.name,
                f"P has shape {shapes['P']}, R {shapes['R']}.",
                "P is (layers, experts), R (layers - 1, experts, experts).",
            )
        for name, part in parts.items():
            if part.header.dtype.kind not in "iuf" or part.header.data_bytes > 16 * MATRIX_BYTES:
                raise InputError.of("load_dtype", f"{file.name}#/{name}", "No plain numbers.", "Save numbers.")
        load, routes = (part.whole().astype(np.float64) for part in parts.values())
        left_out = [key for key in archive.keys if key not in parts]
    axes = Axes.settle(file, hints, layers, lambda: -1, num_experts=experts)
    # Checked before the routes are: their meaning depends on the loads.
    notes = [f"Array {key!r} was left out." for key in left_out[:8]]
    checked_counts(file.name, "moetuner", axes, load.copy(), "")
    pairs, note = _pairs(load, routes, file.name)
    notes += [note, "The file holds no tokens: loads and affinity only."]
    return checked_counts(file.name, "moetuner", axes, load, f"sha256:{file.sha256()}", notes=notes, affinity=pairs)


def _pairs(load: npt.NDArray[np.float64], routes: npt.NDArray[np.float64], name: str) -> tuple[Any, str]:
    """Return the pairs as integers, and what the routes were taken for."""
    found = Violations()
    for layer, first, second in np.argwhere(~np.isfinite(routes) | (routes < 0))[:5]:
        found.add(
            "load_not_finite",
            f"{name}#/R/{layer}/{first}/{second}",
            f"{routes[layer, first, second]} is NaN, infinite or negative.",
            "Correct the routes.",
        )
    found.raise_if_any()
    with np.errstate(over="ignore"):
        rows, totals = routes.sum(axis=2), routes.sum(axis=(1, 2))
    used = load[:-1] > 0
    if not np.isfinite(totals).all() or (len(routes) and not (totals > 0).all()):
        raise InputError.of("load_range", f"{name}#/R", "A layer has no routes, or too many.", "Correct the routes.")
    share = load[:-1] / np.maximum(load[:-1].sum(axis=1, keepdims=True), np.finfo(float).tiny)
    joint = bool((np.abs(rows / totals[:, np.newaxis] - share) <= TOLERANCE / load.shape[1] + TOLERANCE * share).all())
    given = bool((np.abs(rows - 1)[used] <= TOLERANCE).all()) and bool((rows[~used] <= 1 + TOLERANCE).all())
    if not joint and not given:
        raise InputError.of(
            "routes_unclear",
            f"{name}#/R",
            "The rows of R neither sum to 1 nor are they proportional to P.",
            "Give P and R of the same tokens: R as pairs, or as probabilities given the first expert.",
        )
    if not joint:
        routes = routes * share[:, :, np.newaxis]
    elif (routes == np.rint(routes)).all() and totals.max(initial=0) < MOST_PAIRS:
        return routes.astype(np.int64), "R was taken for numbers of pairs."
    scaled = routes * (PAIR_TOTAL / routes.sum(axis=(1, 2), keepdims=True))
    meaning = "shares of pairs" if joint else "probabilities given the first expert"
    return np.rint(scaled).astype(np.int64), f"R was taken for {meaning}; every layer counts alike."


READER = Reader(
    name="moetuner",
    content="MoETuner statistics .npz: P (layers, experts), R (layers - 1, experts, experts); loads and affinity",
    sniff=lambda file: is_foreign(file) and npz_keys(file) >= STATISTICS,
    open=open_moetuner,
)

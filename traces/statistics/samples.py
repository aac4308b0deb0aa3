"""The parts that the statistics share: the token sample, pair counts of some of its tokens, their information."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from traces.profile.checks import counts_only
from traces.profile.kernels import count_pairs
from traces.profile.profile import Profile
from traces.profile.sample import TokenSample
from traces.support.errors import InputError

__all__ = ["check_successors", "information", "layer_pair_counts", "require_sample", "top_columns"]

MIN_SAMPLE = 16


def require_sample(profile: Profile, what: str) -> TokenSample:
    """Return the token sample of `profile`, or raise `InputError` saying why `what` can't be had."""
    if profile.affinity is None:
        raise counts_only(what)
    if profile.num_layers < 2:
        raise InputError.of(
            "single_layer", "/profile/layer_ids", f"{what} needs two layers; there is one.", "Record more MoE layers."
        )
    sample = profile.sample
    if sample is None or len(sample) < MIN_SAMPLE:
        raise InputError.of(
            "sample_too_small",
            "/profile/sample",
            f"{what} needs at least {MIN_SAMPLE} sampled tokens; there are {0 if sample is None else len(sample)}.",
            "Profile a longer trace, with `sample_tokens` at its default.",
        )
    return sample


def check_successors(successors: int | None, num_experts: int) -> int:
    """Return the number of successors to look at: by default an eighth of the experts, one GPU's share out of eight."""
    if successors is None:
        return -(-num_experts // 8)
    if not 1 <= successors <= num_experts:
        raise InputError.of(
            "successors_range",
            "/successors",
            f"{successors} successors out of {num_experts} experts.",
            f"Give 1 to {num_experts}.",
        )
    return successors


def layer_pair_counts(
    first: npt.NDArray[np.integer[Any]], second: npt.NDArray[np.integer[Any]], num_experts: int
) -> npt.NDArray[np.int64]:
    """Count pairs (i in a row of `first`, j in the same row of `second`), both (n, K): (E, E) int64."""
    counts = np.zeros((num_experts, num_experts), np.int64)
    count_pairs(np.stack([first, second], axis=1), 0, 1, counts)
    return counts


def top_columns(counts: npt.NDArray[Any], columns: int) -> npt.NDArray[np.int64]:
    """Return the indices of the `columns` largest entries of each row, in no particular order."""
    if columns >= counts.shape[1]:
        return np.broadcast_to(np.arange(counts.shape[1]), counts.shape)
    return np.argpartition(-counts, columns - 1, axis=1)[:, :columns]


def information(counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the plug-in mutual information of an (E, E) table and the entropy of its columns, in bits."""
    total = counts.sum()
    if not total:
        return 0.0, 0.0
    joint, rows, columns = (_entropy(table / total) for table in (counts, counts.sum(axis=1), counts.sum(axis=0)))
    return rows + columns - joint, columns


def _entropy(p: npt.NDArray[np.float64]) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log2(positive)).sum())

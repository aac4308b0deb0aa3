"""How much the experts' loads vary between groups of tokens that are drawn together: windows, or whole sequences."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from placement.loads.kernels.homes import add_sequence_products
from traces import Profile, TokenSample

__all__ = ["count_groups", "sequence_deviations", "sequence_moments", "source_deviations", "window_deviations"]

Array = npt.NDArray[np.float64]


def count_groups(profile: Profile, groups: Literal["windows", "sequences", "sources"]) -> int:
    """Return how many windows, buckets of sequences, or sources hold tokens."""
    if groups == "sources":
        return 0 if profile.windows is None else len(np.unique(profile.windows.source))
    if groups == "windows":
        return 0 if profile.windows is None else len(profile.windows)
    return 0 if profile.sequence_load is None else int(profile.sequence_load.any(axis=(1, 2)).sum())


def window_deviations(profile: Profile) -> Array | None:
    """Return the deviations of the windows' shares from their mean, (L, E, W); None without two windows.

    Windows are taken to differ in size only where one is cut short: the variance of a window's share is inverse to its
    tokens. Scaled so that the squares over W add up to the variance of the mean.
    """
    windows = profile.windows
    if windows is None or len(windows) < 2:
        return None
    total = windows.load.sum(axis=2, keepdims=True)
    share = np.divide(windows.load, total, out=np.zeros(windows.load.shape), where=total > 0)
    weight = windows.tokens / windows.tokens.sum()
    scale = np.sqrt(weight / (len(windows) - 1))
    centred = (share - np.einsum("w,wle->le", weight, share)) * scale[:, None, None]
    return np.ascontiguousarray(centred.transpose(1, 2, 0))


def sequence_deviations(profile: Profile) -> Array | None:
    """Return the deviations of the buckets of whole sequences, (L, E, W); None without two buckets.

    Sequences have any length, so a layer's shares are ratios of two sums over clusters of unequal size, with the usual
    linearisation: deviation of bucket b ``y[b] - n[b] p`` for its loads y, their sum n and the shares p of all buckets
    (Cochran, Sampling Techniques, 3rd ed., 1977, section 6.3; clusters: section 9A.5). Scaled so that the squares over
    W add up to the variance of the shares. Nothing is assumed of tokens within a sequence, nor of sequences within a
    bucket but that a hash has put them there.
    """
    if count_groups(profile, "sequences") < 2:
        return None
    load = profile.sequence_load
    assert load is not None
    load = load[load.any(axis=(1, 2))]
    tokens = load.sum(axis=2, keepdims=True)
    total = tokens.sum(axis=0)
    centred = (load - tokens * (load.sum(axis=0) / total)) / total
    return np.ascontiguousarray((centred * np.sqrt(len(load) / (len(load) - 1))).transpose(1, 2, 0))


def source_deviations(profile: Profile) -> Array | None:
    """Return how far the loads of a source may be from those of all, (L, E, W); None without two sources.

    The squares over W add up to the variance of an expert's share on the tokens of a source that is drawn by its
    tokens: that between the sources, and the mean of those within them, which is estimated from the source's windows
    as from clusters of unequal size (see `sequence_deviations`).
    """
    windows = profile.windows
    if windows is None or count_groups(profile, "sources") < 2:
        return None
    tokens = windows.load.sum(axis=2, keepdims=True)
    share = windows.load.sum(axis=0) / tokens.sum(axis=0)
    keys, columns = np.unique(windows.source), []
    for key in keys:
        load = windows.load[windows.source == key]
        weight, count = (
            windows.tokens[windows.source == key].sum() / windows.tokens.sum(),
            load.sum(axis=2, keepdims=True),
        )
        total = np.maximum(count.sum(axis=0), 1)
        own = load.sum(axis=0) / total
        columns.append((own - share)[None] * np.sqrt(weight * len(keys) / (len(keys) - 1)))
        if len(load) > 1:
            columns.append((load - count * own) / total * np.sqrt(weight * len(load) / (len(load) - 1)))
    return np.ascontiguousarray(np.concatenate(columns).transpose(1, 2, 0))


def sequence_moments(sample: TokenSample, num_experts: int) -> Array:
    """Return ``sum_s y[s] y[s]' / n^2`` over the sequences s of a sample, (L, E, E).

    With y the loads of a sequence's tokens in a layer, and n the sum of all. Where each sequence moves a load of its
    own to some GPU at random, independently of the others, this is what the variance of the GPU's share is made of. Of
    a trace longer than the sample, it is that of a trace as long as the sample.
    """
    order = np.argsort(sample.seq_id, kind="stable")
    _, first = np.unique(sample.seq_id[order], return_index=True)
    start = np.append(first, len(order))
    moments = np.zeros((sample.topk_ids.shape[1], num_experts, num_experts))
    for layer, products in enumerate(moments):
        ids = np.ascontiguousarray(sample.topk_ids[order, layer])
        add_sequence_products(ids, start, products)
        products /= max(int((ids >= 0).sum()), 1) ** 2
    return moments

"""The profile of a mixture: as if every domain had been recorded so often that its weight is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import Profile, TokenSample
from traces.profile.windows import WindowedLoad

__all__ = ["mixed"]

Floats = npt.NDArray[np.float64]
STEPS = 10_000  # times that the domain of most weight per token is taken, so that weights are nearly right
LIMIT = 1 << 20  # windows that may be kept: these are not coarsened
COUNTED = ("affinity", "coactivation", "source_load", "sequence_load")


def mixed(profiles: Sequence[Profile], weights: Floats) -> Profile:
    """Return the profile of a mixture of domains.

    All counts of domain d are taken m[d] times, whole numbers in proportion to ``weights[d] / tokens[d]``, so that they
    agree with each other as those of one trace do. The windows of the load are those of the domains, of their sequences
    where these are known, each domain a source of its own: with load groups ``sources``, a search under the objective's
    weight of the spread wants GPUs that are even in every domain, and not only on average. The sample has tokens of
    each domain by its weight, and any beginning of it as well.

    Parameters
    ----------
    profiles : sequence of Profile
        Of each domain, with tokens, of the same layers and experts.
    weights : (D,) float64
        Shares of the tokens; they sum to 1.
    """
    tokens = np.array([profile.tokens for profile in profiles], dtype=np.float64)
    rate = weights / tokens
    times = np.round(STEPS * rate / rate.max()).astype(np.int64)
    times = np.maximum(times, (weights > 0).astype(np.int64))
    kept = [number for number in range(len(profiles)) if times[number]]
    values: dict[str, Any] = {
        name: sum(times[d] * getattr(profiles[d], name) for d in kept)
        if all(getattr(profiles[d], name) is not None for d in kept)
        else None
        for name in COUNTED
    }
    first = profiles[kept[0]]
    share = np.array([float(times[d]) * tokens[d] for d in kept])
    groups = [_groups(profiles[d]) for d in kept]
    windows = WindowedLoad(
        window_tokens=1,
        limit=LIMIT,
        source=np.concatenate([np.full(len(load), d, np.uint64) for d, (_, load) in zip(kept, groups, strict=True)]),
        index=np.concatenate([np.arange(len(load)) for _, load in groups]),
        tokens=np.concatenate([times[d] * count for d, (count, _) in zip(kept, groups, strict=True)]),
        load=np.concatenate([times[d] * load for d, (_, load) in zip(kept, groups, strict=True)]),
    )
    return replace(
        first,
        tokens=int(share.sum()),
        load=sum(times[d] * profiles[d].load for d in kept),
        distant={},
        windows=windows,
        sample=_drawn([profiles[d].sample for d in kept], share / share.sum()),
        sources=tuple(sorted({source for d in kept for source in profiles[d].sources}, key=lambda item: item.digest)),
        **values,
    )


def _groups(profile: Profile) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return tokens (W,) and loads (W, L, E) of a domain's groups: of sequences where they are known, else windows."""
    load = profile.sequence_load
    if load is None:
        assert profile.windows is not None  # of tokens
        return profile.windows.tokens, profile.windows.load
    load = load[load.any(axis=(1, 2))]
    # By the layer that routes most tokens: the number of tokens in a bucket is not kept.
    return -(-load.sum(axis=2).max(axis=1) // profile.top_k), load


def _drawn(samples: Sequence[TokenSample | None], share: Floats) -> TokenSample:
    """Return a sample with so much of each domain's, domains dealt out evenly along it."""
    known = [sample for sample in samples if sample is not None]
    most = min(len(sample) / part for sample, part in zip(known, share, strict=True) if part > 0)
    count = min(most, float(known[0].capacity))
    picked = [max(1, int(count * part)) for part in share]
    place = np.concatenate([(np.arange(number) + 0.5) / number for number in picked])
    order = np.argsort(place, kind="stable")
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(sample, name)[:number] for sample, number in zip(known, picked, strict=True)])[
            order
        ]
        for name in ("topk_ids", "rows", "seq_id", "source_rank")
    }
    # Rising as in any sample: the beginning of it is a smaller sample of the same mixture.
    return TokenSample(capacity=known[0].capacity, priority=np.arange(len(order), dtype=np.uint64), **joined)

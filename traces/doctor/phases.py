"""Prefill and decode in one trace, where they route differently."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import share
from traces.doctor.observing import Observation

__all__ = ["mixed_phases"]

LEAST_TOKENS = 200  # of each phase
DIFFERENT = 0.05  # of the load lies elsewhere, beyond what noise moves
CORRELATED = 2.0  # tokens of a sequence are alike: noise is so many times that of independent ones


def mixed_phases(seen: Observation, num_experts: int) -> Iterator[Finding]:
    """Tell that prefill and decode are both there and use other experts."""
    parts = [seen.evidence(num_experts, phase) for phase in (0, 1)]
    tokens = [0 if part.tokens is None else int(part.tokens.max(initial=0)) for part in parts]
    if min(tokens) < LEAST_TOKENS:
        return
    loads = [part.load for part in parts]
    both = (loads[0].sum(axis=1) > 0) & (loads[1].sum(axis=1) > 0)
    if not both.any():
        return
    first, second = (load[both] / load[both].sum(axis=1, keepdims=True) for load in loads)
    pooled = (first + second) / 2
    per_count = sum(1 / load[both].sum(axis=1, keepdims=True) for load in loads)
    # Half of the mean absolute difference of two normal estimates, were the loads the same.
    noise = float((np.sqrt(2 / np.pi * pooled * per_count).sum(axis=1) / 2).mean())
    apart = float((np.abs(first - second).sum(axis=1) / 2).mean())
    if apart < DIFFERENT + CORRELATED * noise:
        return
    yield Finding(
        code="mixed_phases",
        severity="warning",
        detail=f"{tokens[0]:,} prefill and {tokens[1]:,} decode tokens are together, and {share(apart * 1e6, 1e6)} "
        "of the "
        "load lies on other experts in one than in the other (mean over layers). A plan for their mixture is right for "
        "neither pass, and where prefill and decode run apart it is wrong for both.",
        remedy="Plan for one of them: `phase` prefill, or `phase` decode.",
    )

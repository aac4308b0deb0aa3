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
FEW = 2.0  # times what halves of the sequences tell, which is a guess where there are few
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
    if apart < DIFFERENT + max(CORRELATED * noise, FEW * _between_sequences(seen, num_experts)):
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


def _between_sequences(seen: Observation, num_experts: int) -> float:
    """Return how much of the load would lie elsewhere if the phases were drawn from the same sequences.

    Sequences have topics, and few of them differ by themselves. Halves of a phase tell: were their loads those of `n`
    sequences each, the variance of their difference is 2 / n, of a phase's own load 1 / (2 n).
    """
    squares = 0.0
    for phase in (0, 1):
        halves = [seen.evidence(num_experts, phase, half).load for half in (0, 1)]
        there = (halves[0].sum(axis=1) > 0) & (halves[1].sum(axis=1) > 0)
        if not there.any():
            continue  # sequences are not known, or there is one
        first, second = (load[there] / load[there].sum(axis=1, keepdims=True) for load in halves)
        squares += (float((np.abs(first - second).sum(axis=1) / 2).mean()) / 2) ** 2
    return float(np.sqrt(squares))

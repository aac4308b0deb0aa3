"""Series to test with: domains that take turns, and stationary ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import CountsDump, LoadCounts, Trace

__all__ = ["domain_trace", "dumps_of", "sequence_loads"]


def sequence_loads(
    rng: np.random.Generator, sequences: int, layers: int = 4, experts: int = 12, topics: int = 5
) -> npt.NDArray[np.float64]:
    """Return loads of sequences whose tokens are alike, (N, L, E): each is a mix of a few topics of its own."""
    base = np.random.default_rng(1).dirichlet(np.full(experts, 0.5), (topics, layers))
    loads = np.empty((sequences, layers, experts))
    for number in range(sequences):
        mixed = np.tensordot(rng.dirichlet(np.full(topics, 0.3)), base, 1)
        tokens = int(rng.integers(20, 400))
        loads[number] = [rng.multinomial(tokens, share) for share in mixed]
    return loads


def domain_trace(
    seed: int, domains: int, sequences: int, *, tokens: int = 40, layers: int = 3, experts: int = 8, skew: float = 1.0
) -> Trace:
    """Return a trace of top-1 tokens whose domains (`data_source`), one after the other, prefer experts of their own.

    Every domain has so many sequences of so many tokens; with `skew` 0 all domains are alike.
    """
    rng = np.random.default_rng(seed)
    own = np.random.default_rng(7).permuted(np.tile(np.arange(experts), (domains, layers, 1)), axis=2)
    ids, source, sequence = [], [], []
    for domain in range(domains):
        for _ in range(sequences):
            weight = np.exp(-skew * own[domain])
            share = weight / weight.sum(axis=1, keepdims=True)
            ids.append(np.stack([rng.choice(experts, tokens, p=row) for row in share], axis=1))
            source += [domain] * tokens
            sequence += [len(ids)] * tokens
    return Trace.of(np.concatenate(ids)[:, :, None], num_experts=experts, data_source=source, seq_id=sequence)


def dumps_of(loads: npt.NDArray[Any], times: npt.ArrayLike | None = None) -> LoadCounts:
    """Return counts with a dump per row of loads (W, L, E)."""
    known = [None] * len(loads) if times is None else np.asarray(times, float).tolist()
    counts = LoadCounts.of(loads.sum(axis=0))
    dumps = tuple(
        CountsDump(name=f"dump{number}", time=time, read=partial(np.asarray, load, np.float64))
        for number, (load, time) in enumerate(zip(loads, known, strict=True))
    )
    return counts.of_dumps(dumps, "dumps")

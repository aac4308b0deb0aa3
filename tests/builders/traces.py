"""Tokens, traces, profiles and counts to test with: random ones, and ones with a structure that is known."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces import LoadCounts, Profile, Provenance, Trace
from traces.synthetic import Synthetic, generate

__all__ = [
    "full_trace",
    "load_counts",
    "planted_trace",
    "profile_of",
    "random_ids",
    "random_trace",
    "skewed_ids",
    "skewed_trace",
    "staying_ids",
    "staying_trace",
]

Ids = npt.NDArray[np.int16]
Seed = int | list[int] | np.random.Generator


def random_ids(seed: Seed, tokens: int, layers: int, experts: int, top_k: int = 2, *, missing: float = 0.0) -> Ids:
    """Return distinct experts of each token, all equally likely, (T, L, K); a share `missing` of them is -1."""
    rng = np.random.default_rng(seed)
    ids = rng.random((tokens, layers, experts)).argsort(axis=2)[:, :, :top_k].astype(np.int16)
    if missing:
        ids[rng.random(ids.shape) < missing] = -1
    return ids


def random_trace(seed: Seed, tokens: int, layers: int, experts: int, top_k: int = 2, **fields: Any) -> Trace:
    """Return a trace of `random_ids`; `fields` are columns and whatever else `Trace.of` takes."""
    return Trace.of(random_ids(seed, tokens, layers, experts, top_k), num_experts=experts, **fields)


def full_trace(seed: Seed, tokens: int, experts: int = 8, top_k: int = 2, *, missing: float = 0.0) -> Trace:
    """Return a trace of the layers 1 and 4 that has every column, with sequence ids and ranks of all sizes."""
    rng = np.random.default_rng(seed)
    ids = random_ids(rng, tokens, 2, experts, top_k, missing=missing)
    return Trace.of(
        ids,
        num_experts=experts,
        layer_ids=[1, 4],
        gate_weights=rng.random(ids.shape).astype(np.float32),
        seq_id=rng.integers(0, 2**62, tokens),
        token_pos=np.arange(tokens),
        phase=rng.integers(0, 2, tokens),
        source_rank=rng.integers(-1, 5, tokens),
    )


def staying_ids(
    seed: Seed,
    tokens: int,
    layers: int,
    experts: int,
    stay: float,
    *,
    popularity: Literal["equal", "falling", "random"] = "equal",
    mixed: bool = False,
) -> Ids:
    """Return one expert of each token and layer, (T, L, 1): affinity that is known.

    A token has a kind, drawn by the experts' `popularity` (``falling``: expert e has a weight of 1 / (e + 1)). In each
    layer it uses the expert of its kind with probability `stay`, else any. `mixed` renames the experts of every layer,
    so that their order says nothing.
    """
    rng = np.random.default_rng(seed)
    if popularity == "equal":
        kind = rng.integers(0, experts, (tokens, 1))
    else:
        weight = rng.dirichlet(np.ones(experts)) if popularity == "random" else 1 / np.arange(1, experts + 1)
        kind = rng.choice(experts, (tokens, 1), p=weight / weight.sum())
    ids = np.where(rng.random((tokens, layers)) < stay, kind, rng.integers(0, experts, (tokens, layers)))
    if mixed:
        names = rng.permuted(np.tile(np.arange(experts), (layers, 1)), axis=1)
        ids = names[np.arange(layers), ids]
    return ids[:, :, None].astype(np.int16)


def staying_trace(
    seed: Seed,
    tokens: int,
    layers: int,
    experts: int,
    stay: float,
    top_k: int = 1,
    *,
    popularity: Literal["equal", "falling", "random"] = "equal",
    mixed: bool = False,
    sources: int = 0,
) -> Trace:
    """Return a trace of `staying_ids`; a token's further experts are those that come next in order.

    With `sources`, tokens come in sequences of six, and each from one of so many ranks.
    """
    rng = np.random.default_rng(seed)
    first = staying_ids(rng, tokens, layers, experts, stay, popularity=popularity, mixed=mixed)
    columns: dict[str, Any] = {}
    if sources:
        columns = {"source_rank": rng.integers(0, sources, tokens), "seq_id": np.arange(tokens) // 6}
    return Trace.of((first + np.arange(top_k)) % experts, num_experts=experts, **columns)


def skewed_ids(seed: Seed, tokens: int, layers: int, experts: int, exponent: float) -> npt.NDArray[np.int64]:
    """Return one expert of each token and layer, (T, L, 1), by Zipf's law: expert 1 is the hottest."""
    return np.random.default_rng(seed).zipf(exponent, (tokens, layers, 1)) % experts


def skewed_trace(seed: Seed, tokens: int, layers: int, experts: int, exponent: float) -> Trace:
    """Return a trace of `skewed_ids`."""
    return Trace.of(skewed_ids(seed, tokens, layers, experts, exponent), num_experts=experts)


def planted_trace(
    seed: Seed,
    tokens: int,
    layers: int,
    experts: int,
    top_k: int,
    *,
    teams: int,
    pull: float,
    decline: float,
    sequence: int,
    sources: int = 0,
) -> Trace:
    """Return a trace with a planted structure: every token has a topic, and in each layer a team of experts for it.

    The K experts are drawn without replacement, their log-weights `pull` for those of the team less `decline` times
    the expert's number. Tokens come in sequences of `sequence`; with `sources`, these come from so many ranks in turn.
    """
    rng = np.random.default_rng(seed)
    team = np.stack([rng.permutation(experts) % teams for _ in range(layers)])
    topic = rng.integers(teams, size=tokens)
    liking = pull * (team == topic[:, None, None]) - decline * np.arange(experts)
    ids = np.argsort(-(liking + rng.gumbel(size=liking.shape)), axis=2)[:, :, :top_k].astype(np.int16)
    number = np.arange(tokens, dtype=np.int32) // sequence
    columns: dict[str, Any] = {"source_rank": number % sources} if sources else {}
    return Trace.of(ids, num_experts=experts, seq_id=number, **columns)


def load_counts(load: npt.ArrayLike, *, digest: str = "sha256:0", **provenance: Any) -> LoadCounts:
    """Return counts of the layers 0 to L - 1 from loads (L, E)."""
    values = np.asarray(load, np.float64)
    return LoadCounts(load=values, layer_ids=np.arange(len(values)), provenance=Provenance(**provenance), digest=digest)


def profile_of(tokens: Trace | LoadCounts | Synthetic, **counting: Any) -> Profile:
    """Return the profile of a trace, of counts, or of what a generator's parameters make, counted by one worker."""
    trace = generate(tokens) if isinstance(tokens, Synthetic) else tokens
    return Profile.of(trace, **({"workers": 1} | counting))

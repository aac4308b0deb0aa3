"""A generated trace as a `Trace`: batches are made as they are read, and never kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.batch import Batch
from traces.provenance import Provenance
from traces.support.parallel import available_cores, map_threads
from traces.synthetic.kernel import draw_experts, draw_topics, hash_rows
from traces.synthetic.parameters import Synthetic
from traces.synthetic.tables import Tables
from traces.trace import Trace

__all__ = ["generate"]

# Part of the digest; to be raised when the same parameters begin to give another trace.
MODEL_VERSION = 1


def generate(params: Synthetic) -> Trace:
    """Return the trace of `params`, which can be read as often as needed.

    Parameters
    ----------
    params : Synthetic

    Returns
    -------
    Trace
        With the columns `seq_id`, `token_pos`, `phase` and, if there are source ranks, `source_rank`. Nothing is drawn
        until it is read; memory is that of one batch and of ``14 L Z E`` bytes of tables, Z being the number of topics.

    References
    ----------
    .. [1] Drawing without replacement in proportion to ``exp(logit)`` is taking the top k of the logits with Gumbel
       noise: J. Yellott, J. Math. Psychol. 15 (1977), doi:10.1016/0022-2496(77)90026-8; W. Kool et al., ICML 2019,
       arXiv:1903.06059.
    """
    columns = {"seq_id", "token_pos", "phase"} | ({"source_rank"} if params.source_ranks else set())
    made = _Generated(params=params)
    return Trace(
        layer_ids=np.arange(params.num_layers, dtype=np.int64),
        num_experts=params.num_experts,
        top_k=params.top_k,
        num_tokens=params.num_tokens,
        read=made.read,
        hash_source=made.sha256,
        columns=frozenset(columns),
        provenance=Provenance(source="synthetic", format="synthetic", notes=(f"Generated with {made.described}.",)),
    )


@dataclass(frozen=True, kw_only=True)
class _Generated:
    """The tokens of `params`; pickles as these."""

    params: Synthetic

    @cached_property
    def tables(self) -> Tables:
        return Tables.of(self.params)

    @property
    def described(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in asdict(self.params).items())

    def read(self, max_tokens: int) -> Iterator[Batch]:
        count = self.params.num_tokens
        for start in range(0, count, max_tokens):
            yield _batch(self.params, self.tables, np.arange(start, min(start + max_tokens, count)))

    def sha256(self) -> str:
        return hashlib.sha256(f"synthetic {MODEL_VERSION}: {self.described}".encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return (partial(_Generated, params=self.params), ())


def _key(params: Synthetic, purpose: int) -> np.uint64:
    """Return a 64-bit key for one use of random numbers."""
    content = f"{params.seed} {purpose}".encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little"))


def _batch(params: Synthetic, tables: Tables, rows: npt.NDArray[np.int64]) -> Batch:
    dtype = np.uint8 if params.num_experts <= 256 else np.uint16
    ids: npt.NDArray[np.integer[Any]] = np.empty((len(rows), params.num_layers, params.top_k), dtype)
    row_hash = np.empty(len(rows), np.uint64)
    topic = np.empty(len(rows), np.int64)
    hash_rows(rows, _key(params, 0), row_hash)
    draw_topics(
        rows,
        _key(params, 1),
        params.tokens_per_sequence,
        params.topics,
        params.topics_per_sequence,
        float(params.drift),
        params.num_tokens,
        topic,
    )

    def draw(part: slice) -> None:
        draw_experts(
            row_hash[part],
            topic[part],
            tables.weight,
            tables.threshold,
            tables.alias,
            tables.group_weight,
            params.limit,
            ids[part],
        )

    step = -(-len(rows) // available_cores())
    map_threads(draw, [slice(start, start + step) for start in range(0, len(rows), step)])
    seq_id = rows // params.tokens_per_sequence
    token_pos = rows - seq_id * params.tokens_per_sequence
    length = np.minimum(params.tokens_per_sequence, params.num_tokens - seq_id * params.tokens_per_sequence)
    phase = (token_pos >= np.ceil(length * (1 - params.decode_share) - 1e-9)).astype(np.uint8)
    return Batch(
        topk_ids=ids,
        rows=rows,
        seq_id=seq_id,
        token_pos=token_pos,
        phase=phase,
        source_rank=_source_rank(params, seq_id),
    )


def _source_rank(params: Synthetic, seq_id: npt.NDArray[np.int64]) -> npt.NDArray[np.int32] | None:
    if not params.source_ranks:
        return None
    hashed = np.empty(len(seq_id), np.uint64)
    hash_rows(seq_id, _key(params, 2), hashed)
    return (hashed % np.uint64(params.source_ranks)).astype(np.int32)

"""What requests are known by: how often a token of theirs uses each expert, in its first half and in its second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces import InputError, Trace

__all__ = ["Signatures", "signatures_of"]

Floats = npt.NDArray[np.float64]
MAX_ENTRIES = 1 << 27  # requests x layers x experts, which bounds the memory to 1 GB


@dataclass(frozen=True, kw_only=True, eq=False)
class Signatures:
    """Requests of a trace.

    Attributes
    ----------
    first, second : (R, L, E) float32
        Mean uses of an expert by a token, in the first and in the second half of each request.
    ids : (R,) int64
        `seq_id` of each.
    tokens : (R,) int64
    """

    first: npt.NDArray[np.float32]
    second: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]

    def of(self, part: npt.NDArray[np.bool_]) -> Signatures:
        """Return some of the requests."""
        return Signatures(
            first=self.first[part], second=self.second[part], ids=self.ids[part], tokens=self.tokens[part]
        )

    @property
    def whole(self) -> Floats:
        """Both halves as one, (R, L, E): each counts the same, as in decode every request has one token in a step."""
        mean: Floats = (self.first.astype(np.float64) + self.second) / 2
        return mean


def signatures_of(trace: Trace) -> Signatures:
    """Count a trace, request by request; requests of a single token have no second half and are left out.

    Parameters
    ----------
    trace : Trace
        With `seq_id`.

    Raises
    ------
    InputError
        If requests are not told apart, or there are too many to hold.
    """
    if "seq_id" not in trace.columns:
        detail = "The trace does not say which tokens are of one request."
        raise InputError.of("no_sequences", trace.provenance.source, detail, "Record seq_id.")
    seen: dict[int, int] = {}
    for batch in trace.batches():
        ids, counts = np.unique(np.asarray(batch.seq_id), return_counts=True)
        for each, count in zip(ids.tolist(), counts.tolist(), strict=True):
            seen[each] = seen.get(each, 0) + count
    long = {each: number for number, each in enumerate(key for key, count in seen.items() if count > 1)}
    layers, experts = trace.num_layers, trace.num_experts
    if len(long) * layers * experts > MAX_ENTRIES:
        detail = f"{len(long):,} requests of {layers} layers and {experts} experts are more than is held at once."
        remedy = f"Give at most {MAX_ENTRIES // (layers * experts):,} requests."
        raise InputError.of("too_many_requests", trace.provenance.source, detail, remedy)
    halves = np.zeros((2, len(long), layers, experts), np.float32)
    passed = dict.fromkeys(long, 0)
    for batch in trace.batches():
        sequence = np.asarray(batch.seq_id).astype(np.int64)
        for each in np.unique(sequence).tolist():
            if each not in long:
                continue
            rows = np.flatnonzero(sequence == each)
            late = (np.arange(len(rows)) + passed[each]) >= (seen[each] + 1) // 2
            passed[each] += len(rows)
            for half in (0, 1):
                ids = batch.topk_ids[rows[late == bool(half)]].astype(np.int64)
                for layer in range(layers):
                    used = ids[:, layer][ids[:, layer] >= 0]  # -1: a token that was dropped
                    halves[half, long[each], layer] += np.bincount(used, minlength=experts)
    tokens = np.array([seen[each] for each in long], dtype=np.int64)
    sizes = tokens.astype(np.float32)
    halves[0] /= np.maximum(np.ceil(sizes / 2), 1)[:, None, None]
    halves[1] /= np.maximum(np.floor(sizes / 2), 1)[:, None, None]
    ids = np.fromiter(long, np.int64, len(long))
    return Signatures(first=halves[0], second=halves[1], ids=ids, tokens=tokens)

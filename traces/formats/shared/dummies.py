"""Rows that no token made: dummy batches that keep ranks in step, warm-up runs, buffers that were never written.

They show as rows that repeat the row before, in all layers at once, and as rows of a single id, which no token with
K > 1 can choose. Both are reported for every format; they are dropped on request only, as nothing proves that two
tokens in a row can't be alike. (87 % of the rows were such in a public vLLM log.) When a trace is opened, its start is
looked at; whatever reads it to its end anyway counts all rows (`traces.repeats`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from traces.batch import Batch
from traces.counts import LoadCounts
from traces.repeats import Repeats
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["settle_dummies"]

LOOK_TOKENS = 8192
DROPPED = "Rows that repeat the row before, and rows of a single id, were left out on request."


def settle_dummies(loaded: Trace | LoadCounts, drop: bool) -> Trace | LoadCounts:
    """Drop dummy rows on request, or else look for them at the start of a trace and note them.

    Parameters
    ----------
    loaded : Trace or LoadCounts
    drop : bool

    Returns
    -------
    Trace or LoadCounts
        With a note where there is something to tell.

    Raises
    ------
    InputError
        If rows of counts are to be dropped.
    """
    if isinstance(loaded, LoadCounts):
        if not drop:
            return loaded
        detail = f"{loaded.provenance.source} holds counts, in which tokens can't be told apart: no row can be dropped."
        raise InputError.of("option_unused", "/drop_dummy_rows", detail, "Leave it out.")
    if drop:
        return _dropping(loaded)
    found = _look(loaded)
    return replace(loaded, provenance=loaded.provenance.noting(found)) if found else loaded


def _look(trace: Trace) -> str | None:
    found = Repeats()
    if not found.tells(trace):
        return None
    try:
        for batch in trace.read(LOOK_TOKENS):
            found.mask(batch.topk_ids)
            if found.rows >= LOOK_TOKENS:
                break
    except InputError:
        return None  # it is raised again, with its place, when the trace is read
    return found.head_note(trace)


def _dropping(trace: Trace) -> Trace:
    read, hash_source = trace.read, trace.hash_source

    def read_kept(max_tokens: int) -> Iterator[Batch]:
        found = Repeats()
        # With one expert per token and many layers, rows of zeros are no tokens either; the first of them has no twin.
        zeros = trace.top_k == 1 and found.tells(trace)
        for batch in read(max_tokens):
            kept = ~found.mask(batch.topk_ids)
            if zeros:
                kept &= batch.topk_ids.any(axis=(1, 2))
            if kept.all():
                yield batch
            elif kept.any():
                yield batch.select(kept)

    return replace(
        trace,
        read=read_kept,
        hash_source=lambda: hashlib.sha256(f"{hash_source()}|{DROPPED}".encode()).hexdigest(),
        num_tokens=None,
        provenance=trace.provenance.noting(DROPPED),
    )

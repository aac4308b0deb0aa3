"""Ids that are no routed experts: of fused shared experts and of zero-computation experts, and filler.

Engines number them on from E: a fused shared expert is E, which every token has; LongCat-Flash has 256 ids for experts
that return their input or nothing. A filler of -1 is 255 in uint8, 65535 in uint16. None of them holds weights that a
plan could place, so that on request they are read as missing entries: the token has fewer experts in that layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from traces.batch import Batch, IntArray
from traces.counts import LoadCounts
from traces.experts_base import from_one
from traces.formats.hints import Hints
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READ_AS_NONE", "UNUSED", "settle_beyond"]

READ_AS_NONE = "were read as no routed expert"
UNUSED = "option_unused"
LEAST_USES = 8  # of an expert, on average: fewer choices may pass over expert 0


def settle_beyond(loaded: Trace | LoadCounts, hints: Hints) -> Trace | LoadCounts:
    """Read ids of `num_experts` and above as no routed expert, if that is asked for.

    Parameters
    ----------
    loaded : Trace or LoadCounts
    hints : Hints
        Where `top_k` is less than the trace's, as it is beside a fused shared expert, the missing entries are cut off.

    Raises
    ------
    InputError
        For counts, in which an id is a column. At the end of a pass: if no id is beyond the experts, so that the option
        has no effect, or the only one there is the last of those that are counted from 1.
    """
    if not hints.beyond_is_none:
        return loaded
    if isinstance(loaded, LoadCounts):
        detail = "The file holds counts, in which every column is an expert."
        remedy = "Leave it out; cut columns of other than routed experts off the counts."
        raise InputError.of("option_unused", "/ids_beyond_experts", detail, remedy)
    experts, asked, place = loaded.num_experts, hints.experts_per_token, loaded.provenance.source
    top_k = loaded.top_k if asked is None else min(asked, loaded.top_k)
    note = f"Ids from {experts} on {READ_AS_NONE}, on request."
    read, hash_source = loaded.read, loaded.hash_source

    def read_routed(max_tokens: int) -> Iterator[Batch]:
        largest, zero, rows = -1, False, 0
        for batch in read(max_tokens):
            ids = _without(batch.topk_ids, experts)
            if len(ids):
                largest, zero = max(largest, int(batch.topk_ids.max())), zero or bool((ids == 0).any())
                rows += len(ids)
            yield replace(batch, topk_ids=ids) if top_k == ids.shape[2] else _cut(batch, ids, top_k, place)
        if rows and largest < experts and top_k == loaded.top_k and not hints.lenient:
            detail = f"No id of {place} is {experts} or above, so that there is nothing to take for none."
            raise InputError.of(UNUSED, "/ids_beyond_experts", detail, "Leave it out.")
        if largest == experts and not zero and rows * top_k >= LEAST_USES * experts:
            raise from_one(place, experts + 1, columns=False)

    return replace(
        loaded,
        top_k=top_k,
        read=read_routed,
        hash_source=lambda: hashlib.sha256(f"{hash_source()}|{note}{top_k}".encode()).hexdigest(),
        provenance=loaded.provenance.noting(note),
    )


def _without(ids: IntArray, experts: int) -> IntArray:
    """Return ids (T, L, K) with -1 for those beyond the experts, in a type that has it."""
    beyond: npt.NDArray[np.bool_] = ids >= experts
    kept = ids.astype(np.int16 if ids.dtype.kind == "u" else ids.dtype)  # ids of experts fit int16: MAX_EXPERTS
    kept[beyond] = -1
    return kept


def _cut(batch: Batch, ids: IntArray, top_k: int, place: str) -> Batch:
    """Return the tokens with their first `top_k` experts, missing entries last."""
    missing = ids < 0
    if (over := (~missing).sum(axis=2) > top_k).any():
        row = int(batch.rows[np.argmax(over.any(axis=1))])
        detail = f"A token has more than {top_k} routed experts in a layer."
        raise InputError.of("top_k_differ", f"{place}#row {row}", detail, "Correct `top_k`, or leave it out.")
    order = np.argsort(missing, axis=2, kind="stable")[:, :, :top_k]
    weights = batch.gate_weights
    return replace(
        batch,
        topk_ids=np.take_along_axis(ids, order, axis=2),
        gate_weights=None if weights is None else np.take_along_axis(weights, order, axis=2),
    )

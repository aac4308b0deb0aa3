"""The rule that no token has an expert twice in a layer, checked by a compiled loop."""

from __future__ import annotations

import numba
import numpy as np

from traces.batch import Batch, IntArray
from traces.rules import HasAxes, report_entries
from traces.support.errors import Violations

__all__ = ["check_duplicates", "find_duplicate"]

DENSE = "If these are dense layers filled with zeros, leave them out (`layer_ids`)."
NO_EXPERT = (
    "If it is no routed expert (filler, shared or zero-computation experts), state `num_experts` and treat such ids as "
    "none: `ids_beyond_experts` none. Rows of a single id are left out with `drop_dummy_rows`."
)
ZERO_EXPERTS = (
    "If the model has zero-computation experts (LongCat-Flash), vLLM writes them as 0, where they can't be told from "
    "expert 0: record with an engine that keeps their ids, such as SGLang."
)


def check_duplicates(batch: Batch, trace: HasAxes) -> None:
    """Check that no token lists an expert twice in a layer; ids must be in range."""
    ids = batch.topk_ids
    if ids.shape[2] < 2 or find_duplicate(ids) < 0:
        return
    found = Violations()
    earlier = np.tri(ids.shape[2], k=-1, dtype=bool)
    for start in range(0, len(ids), 1024):  # a part at a time, as the comparison takes K^2 bytes per token and layer
        part = ids[start : start + 1024]
        equal = (part[:, :, :, np.newaxis] == part[:, :, np.newaxis, :]) & (part >= 0)[:, :, :, np.newaxis]
        twice = (equal & earlier).any(axis=3)
        if twice.any():
            zeros_only = not part[twice].any()
            report_entries(
                found,
                "duplicate_expert",
                batch.select(slice(start, start + 1024)),
                twice,
                trace,
                "is chosen twice: the experts of a token and layer must differ",
                f"{DENSE} {ZERO_EXPERTS}" if zeros_only else NO_EXPERT,
            )
            break
    found.raise_if_any()


@numba.njit(nogil=True, cache=True)
def find_duplicate(ids: IntArray) -> int:
    """Return the first token that lists an expert twice in one layer, or -1."""
    for t in range(ids.shape[0]):
        for layer in range(ids.shape[1]):
            twice = False
            for a in range(1, ids.shape[2]):
                for b in range(a):
                    # Branch-free, so that the comparison vectorises.
                    twice |= (ids[t, layer, a] == ids[t, layer, b]) & (ids[t, layer, a] >= 0)
            if twice:
                return t
    return -1

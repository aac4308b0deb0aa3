"""The triple that EPLB returns, as ``.npz``: ``phy2log`` [L, P], ``log2phy`` [L, E, replicas] and ``logcnt`` [L, E].

https://github.com/deepseek-ai/EPLB, ``rebalance_experts``. It may put two replicas of an expert on one GPU, so they are
not refused here; in a file for an engine that loads a map, they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared import axes
from placement.exports.shared.document import Document
from placement.exports.shared.npz_bytes import npz_bytes, whole_array
from placement.exports.table import Rules, Table
from traces import Violations

__all__ = ["EXPORT"]

NAMES = ("phy2log", "log2phy", "logcnt")


def _sniff(document: Document) -> bool:
    return "phy2log" in document.array_names


def _counts(slots: npt.NDArray[np.int64], experts: int) -> npt.NDArray[np.int64]:
    return np.stack([np.bincount(row, minlength=experts) for row in slots]).astype(np.int64)


def _encode(table: Table, context: Context) -> bytes:
    counts = _counts(table.slots, table.num_experts)
    log2phy = np.full((*counts.shape, int(counts.max())), -1, dtype=np.int64)
    for row, slots in enumerate(table.slots):
        order = np.argsort(slots, kind="stable")
        first = np.concatenate([[0], np.cumsum(counts[row])[:-1]])
        log2phy[row, slots[order], np.arange(len(order)) - first[slots[order]]] = order
    return npz_bytes({"phy2log": table.slots, "log2phy": log2phy, "logcnt": counts})


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    place = f"{document.name}#"
    phy2log = whole_array(document, "phy2log", 2, found)
    counts = whole_array(document, "logcnt", 2, found) if "logcnt" in document.array_names else None
    log2phy = whole_array(document, "log2phy", 3, found) if "log2phy" in document.array_names else None
    if found.found:
        return None
    experts = axes.experts_of(phy2log, context) if counts is None else counts.shape[1]
    if not 0 <= phy2log.min() <= phy2log.max() < experts:
        detail = f"Ids {phy2log.min()}..{phy2log.max()} are not in 0..{experts - 1}."
        found.add("expert_out_of_range", f"{place}/phy2log", detail, "Use logical ids.")
        return None
    if counts is not None:
        if counts.shape[0] != len(phy2log) or not np.array_equal(counts, _counts(phy2log, experts)):
            found.add("arrays_differ", f"{place}/logcnt", "These are not the replicas in phy2log.", "Write them anew.")
        elif log2phy is not None and not _inverse(phy2log, log2phy, counts):
            found.add("arrays_differ", f"{place}/log2phy", "This is not the inverse of phy2log.", "Write it anew.")
    if found.found:
        return None
    layers, notes = axes.ordinals(len(phy2log), context, document.name)
    return Table(
        slots=phy2log,
        layer_ids=layers,
        num_experts=experts,
        num_gpus=None,
        places=tuple(f"{place}/phy2log/{row}" for row in range(len(phy2log))),
        notes=notes if counts is not None else (*notes, *axes.experts_note(experts, context)),
    )


def _inverse(phy2log: npt.NDArray[np.int64], log2phy: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> bool:
    """Whether `log2phy` lists each slot once, under its expert, and -1 in all other places."""
    if log2phy.shape[:2] != counts.shape:
        return False
    used = log2phy >= 0
    if not np.array_equal(used.sum(axis=2), counts) or log2phy.max() >= phy2log.shape[1] or log2phy.min() < -1:
        return False
    layer, expert, _ = np.nonzero(used)
    slots = log2phy[used]
    distinct = len(np.unique(layer * phy2log.shape[1] + slots)) == phy2log.size == len(slots)
    return distinct and bool((phy2log[layer, slots] == expert).all())


EXPORT = Export(
    name="eplb",
    content="EPLB's triple: .npz with phy2log, log2phy and logcnt, MoE layers counted from 0",
    engine="deepseek-ai/EPLB, rebalance_experts",
    usage="numpy.load(FILE)",
    suffix=".npz",
    rules=Rules(layers="ordinals", distinct=False, mtp="may"),
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
)

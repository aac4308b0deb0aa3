"""Ids that are no routed experts: fillers, fused shared experts, zero experts; and how many experts that leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from traces.doctor.diagnosis import Finding, Severity
from traces.doctor.evidence import share
from traces.doctor.kernels import MISSING, ZERO_TWICE
from traces.doctor.observing import FILLERS, Observation
from traces.experts_base import counted_from_one, from_one
from traces.support.shown import runs

__all__ = ["settle_ids", "told_from_one"]

GAP = 8  # ids below a filler that nobody uses, where nobody says how many experts there are
EVERY = 0.999  # of the tokens: an expert that is not routed is in all of them
LEAST_MISSING = 0.01  # of the entries
LEAST_TOKENS = 100
MIN_BLOCK = 2  # ids that share a place of the lists
SPREAD = 0.75  # of the other ids are in every other place
PAIRS = 50  # lists with two ids of the block, were they routed experts like others
Ints = npt.NDArray[np.int64]
AS_NONE = "Treat them as none: `ids_beyond_experts` none, with `num_experts` {}"


def settle_ids(seen: Observation, stated: int | None) -> tuple[int, list[Finding]]:
    """Return the number of routed experts, and what is wrong with the ids.

    Parameters
    ----------
    seen : Observation
    stated : int or None
        Experts per layer, as the file or the caller says; None: nobody does.
    """
    found = _missing(seen)
    used = np.flatnonzero(seen.by_id)
    fillers = _fillers(seen, used, stated)
    found += _filler_findings(seen, fillers, stated)
    real = used[~np.isin(used, fillers)]
    largest = int(real.max(initial=-1)) + 1
    experts = largest if stated is None else stated
    beyond = real[real >= experts]
    if len(beyond):
        found.append(_beyond(seen, beyond, experts))
    if largest in (experts, experts + 1) and counted_from_one(seen.seen.ids[:, :, :largest].sum(axis=0)):
        others = [one for one in found if one.code != "ids_beyond_experts"]
        return largest, [*others, told_from_one(largest, surely=stated != largest)]
    shared = 0 if len(beyond) else _shared(seen, experts)
    if shared:
        experts -= shared
        found.append(_fused(seen, np.arange(experts, experts + shared), experts, "warning"))
    elif stated is None and (first := _own_column(seen, experts)) is not None:
        found.append(_split(seen, np.arange(first, experts), first))
        experts = first
    if (twice := int(seen.seen.rows[:, ZERO_TWICE].sum())) > 0:
        found.append(_zero_twice(seen, twice))
    return max(experts, 1), found


def told_from_one(num_experts: int, *, columns: bool = False, surely: bool = True) -> Finding:
    """Return the finding of ids 1 to `num_experts` - 1; not `surely` where that number is stated."""
    wrong = from_one("", num_experts, columns=columns).violations[0]
    severity: Severity = "error" if surely else "warning"
    return Finding(code="ids_beyond_experts", severity=severity, detail=wrong.detail, remedy=wrong.remedy)


def _missing(seen: Observation) -> list[Finding]:
    found = []
    by_column = seen.seen.columns
    whole = by_column.sum(axis=1)
    empty = np.flatnonzero((by_column[:, MISSING] == whole) & (whole > 0))
    if seen.missing == seen.entries and seen.missing:
        detail = "Every entry is -1: there is no id."
        found.append(_filler("error", detail, "Record again, with the routing of every layer returned."))
    elif len(empty) or seen.missing >= LEAST_MISSING * max(seen.entries, 1) > 0:
        where = f"; place(s) {runs(empty.tolist())} of every token hold nothing else" if len(empty) else ""
        detail = (
            f"{share(seen.missing, seen.entries)} of the entries are -1{where}. They count as missing: such tokens "
        )
        detail += "go to fewer experts, which is right if the model has fewer for them."
        found.append(_filler("note", detail, "Check that the model chooses so few; else record again."))
    if seen.no_ids:
        least, most = seen.other
        detail = f"{share(seen.no_ids, seen.entries)} of the entries are no ids: values from {least} to {most}."
        remedy = "Write -1 where there is no expert, or record again."
        found.append(_filler("error", detail, remedy))
    return found


def _fillers(seen: Observation, used: Ints, stated: int | None) -> Ints:
    """Return the ids in use that are fillers: beyond the experts, or far above all others where nobody states these."""
    last = seen.by_id.shape[0] - 1
    if stated is not None:
        return np.array([one for one in FILLERS if stated <= one <= last and seen.by_id[one]], np.int64)
    top = used[-1:]
    below = int(used[-2]) if len(used) > 1 else -1
    return top if len(top) and int(top[0]) in FILLERS and int(top[0]) - below > GAP else top[:0]


def _filler_findings(seen: Observation, fillers: Ints, stated: int | None) -> list[Finding]:
    if not len(fillers):
        return []
    value, count = int(fillers[-1]), int(seen.by_id[fillers].sum())
    columns = np.flatnonzero(seen.seen.columns[:, fillers].sum(axis=1))
    planned = f"is read as {value + 1} experts" if stated is None else "is refused"
    detail = f"{share(count, seen.entries)} of the entries are {runs(fillers.tolist())}, in place(s) "
    detail += f"{runs(columns.tolist())} of the tokens' lists: a filler, -1 in an unsigned type. As it is, the trace "
    detail += f"{planned}."
    remedy = "Write -1 there, in a signed type. Or treat them as none: `ids_beyond_experts` none, with `num_experts` "
    return [_filler("error", detail, f"{remedy}the routed experts of a layer.")]


def _filler(severity: str, detail: str, remedy: str) -> Finding:
    return Finding(code="filler_values", severity=severity, detail=detail, remedy=remedy)  # type: ignore[arg-type]


def _shared(seen: Observation, experts: int) -> int:
    """Return how many of the last ids are in the list of every token, in all layers: experts that nobody routes."""
    tokens, top_k = seen.seen.tokens.sum(axis=0), seen.trace.top_k
    if seen.rows < LEAST_TOKENS or not tokens.any():
        return 0
    load = seen.seen.ids.sum(axis=0)[tokens > 0]
    always = load >= EVERY * tokens[tokens > 0][:, np.newaxis]
    shared = 0
    while shared + 1 < top_k and experts - shared - 1 > top_k and always[:, experts - shared - 1].all():
        shared += 1
    return shared


def _own_column(seen: Observation, experts: int) -> int | None:
    """Return the first of the last ids that occur in one place of the tokens' lists only; None where there are none.

    Routed experts do not: where ids rise within a list, the last place has the largest ones, but others as well as soon
    as a token chooses two of them; and where a router chooses so many from each of several groups, every place has ids
    of its own.
    """
    columns = seen.seen.columns[:, :experts]
    if seen.trace.top_k < 2:
        return None
    used = columns > 0
    alone = used.sum(axis=0) <= 1
    first = experts - int(np.argmin(alone[::-1])) if not alone.all() else 0
    block = columns[:, first:]
    if not MIN_BLOCK <= experts - first < first or (block.any(axis=1).sum() != 1):
        return None
    others = ~block.any(axis=1)
    if (used[others, :first].sum(axis=1) < SPREAD * first).any():
        return None
    lists = max(float(seen.seen.tokens.sum()), 1.0)
    return first if float(block.sum()) ** 2 / (2 * lists) >= PAIRS else None


def _beyond(seen: Observation, ids: Ints, experts: int) -> Finding:
    """Tell ids that are at or above the number of experts that is stated."""
    tokens = seen.seen.tokens.sum()
    if int(seen.by_id[ids].sum()) >= EVERY * tokens * len(ids):
        return _fused(seen, ids, experts, "error")
    count = int(seen.by_id[ids].sum())
    detail = f"{share(count, seen.entries)} of the entries are ids {runs(ids.tolist())}, and `num_experts` is "
    detail += (
        f"{experts}. Zero-computation experts have such ids (LongCat-Flash), and so has the wrong model. They hold "
    )
    detail += "no weights: there is nothing to place, and a plan must not count them."
    remedy = AS_NONE.format(experts) + "; or check that `model` is the one that was recorded."
    return Finding(code="ids_beyond_experts", severity="error", detail=detail, remedy=remedy)


def _fused(seen: Observation, ids: Sequence[int] | Ints, experts: int, severity: str) -> Finding:
    listed = runs(int(one) for one in ids)
    detail = f"Every token lists id {listed}, in all layers: a shared expert that is fused with the routed ones, most "
    detail += f"likely. The router chooses among {experts} experts. A plan would place it as one expert of "
    detail += f"{experts + len(ids)}, the hottest of every layer, in a slot that the engine does not have."
    return Finding(
        code="ids_beyond_experts",
        severity=severity,  # type: ignore[arg-type]
        detail=detail,
        remedy=AS_NONE.format(experts) + ".",
    )


def _split(seen: Observation, ids: Ints, experts: int) -> Finding:
    count = int(seen.by_id[ids].sum())
    detail = f"Ids {runs(ids.tolist())} ({share(count, seen.entries)} of the entries) occur in one place of the "
    detail += "tokens' lists only, never two in a list, and nobody states `num_experts`: zero-computation or shared "
    detail += f"experts above {experts} routed "
    detail += f"ones, most likely. A plan would place them as experts, {experts + len(ids)} in all."
    remedy = f"{AS_NONE.format(experts)}. If they are routed experts, state `num_experts`."
    return Finding(code="ids_beyond_experts", severity="warning", detail=detail, remedy=remedy)


def _zero_twice(seen: Observation, twice: int) -> Finding:
    first = int(seen.seen.first[ZERO_TWICE])
    detail = f"{twice:,} times a token lists id 0 twice in a layer, beside others, from row {first:,} on. "
    detail += "Zero-computation experts come out as 0 in some engines (vLLM with LongCat-Flash). Those that occur once "
    detail += "can't be told from expert 0: its load is too high in every figure."
    remedy = "Record with an engine that keeps their ids (SGLang), and treat these as none: `ids_beyond_experts` none."
    return Finding(code="ids_beyond_experts", severity="error", detail=detail, remedy=remedy)

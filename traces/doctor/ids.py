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
from traces.provenance import Provenance
from traces.support.shown import runs

__all__ = ["settle_ids", "told_beyond", "told_from_one", "told_unrouted"]

GAP = 8  # ids below a filler that nobody uses, where nobody says how many experts there are
EVERY = 0.999  # of the tokens: an expert that is not routed is in all of them
LEAST_MISSING = 0.01  # of the entries
LEAST_TOKENS = 100
MANY = 3  # times as often as the median of the others: a filler, where nobody says how many experts there are
MIN_LAYERS = 2  # in one layer, an expert that every token chooses may be a collapsed router's
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
    if stated is None and len(listed := _listed_twice(seen, real)):
        experts, beyond = int(listed[0]), listed
        found.append(_twice(seen, listed, experts))
    if largest in (experts, experts + 1) and counted_from_one(seen.seen.ids[:, :, :largest].sum(axis=0)):
        others = [one for one in found if one.code != "ids_beyond_experts"]
        return largest, [*others, told_from_one(largest, surely=stated != largest)]
    shared = 0 if len(beyond) else _shared(seen, experts)
    if shared:
        experts -= shared
        found.append(_fused(seen, np.arange(experts, experts + shared), experts, "warning"))
    elif (first := _always(seen, experts)) is not None:
        found.append(told_unrouted(first, experts))
    elif stated is None and not len(beyond) and (first := _own_column(seen, experts)) is not None:
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
    """Return the ids in use that are fillers: far above all others and, where nobody states the experts, many."""
    below = np.concatenate([[-1], used[:-1]])
    alone: Ints = used[(used - below > GAP) & np.isin(used, FILLERS) & (used >= (stated or 0))]
    if stated is not None or not len(alone):
        return alone
    others = seen.by_id[used[:-1]]
    usual = float(np.median(others)) if len(others) else 0.0
    many: Ints = alone[(alone == used[-1]) & (seen.by_id[alone] > MANY * usual)]
    return many


def _listed_twice(seen: Observation, real: Ints) -> Ints:
    """Return the last ids, from the first that a token lists twice on, where no other one is: no expert is.

    Raises
    ------
    InputError
        If an id is listed twice, and ids above it are not: the recording is damaged.
    """
    listed = real[seen.seen.twice[real] > 0]
    if len(listed) and (real >= listed[0]).sum() > len(listed) and seen.refused is not None:
        raise seen.refused
    return listed


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
    # Where a list hardly changes, its other ids are in every one as well.
    return 0 if always[:, : experts - shared].all(axis=0).any() else shared


def _always(seen: Observation, experts: int) -> int | None:
    """Return an id that every token lists, in all of several layers, beside others that change; None without."""
    tokens = seen.seen.tokens.sum(axis=0)
    there = tokens > 0
    if seen.rows < LEAST_TOKENS or there.sum() < MIN_LAYERS or experts <= 2 * seen.trace.top_k:
        return None
    load = seen.seen.ids.sum(axis=0)[there, :experts]
    always = np.flatnonzero((load >= EVERY * tokens[there][:, np.newaxis]).all(axis=0))
    return int(always[0]) if len(always) == 1 and seen.trace.top_k > 1 else None


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
    first = experts - int(np.argmin(alone[::-1])) if not alone.all() else _last_group(used)
    block = columns[:, first:]
    if not MIN_BLOCK <= experts - first < first or (block.any(axis=1).sum() != 1):
        return None
    others = ~block.any(axis=1)
    if (used[others, :first].sum(axis=1) < SPREAD * first).any():
        return None
    lists = max(float(seen.seen.tokens.sum()), 1.0)
    return first if float(block.sum()) ** 2 / (2 * lists) >= PAIRS else None


def _last_group(used: npt.NDArray[np.bool_]) -> int:
    """Return the first id of the last place of lists whose places have ids of their own; 0 where all have as many.

    A router that chooses from each of several groups has groups of one size.
    """
    by_place = [np.flatnonzero(row) for row in used if row.any()]
    last = max(by_place, key=lambda ids: int(ids[-1]), default=np.zeros(1, np.int64))
    others = [ids for ids in by_place if ids is not last]
    first = int(last[0])
    below = all(int(ids[-1]) < first and int(ids[-1] - ids[0]) >= 2 * len(last) for ids in others)
    return first if others and below else 0


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


def _twice(seen: Observation, ids: Ints, experts: int) -> Finding:
    count = int(seen.by_id[ids].sum())
    detail = f"Tokens list id(s) {runs(ids.tolist())} twice ({share(count, seen.entries)} of the entries), which no "
    detail += "routed expert is, and nobody states `num_experts`: zero-computation experts, a shared expert or filler "
    detail += f"above {experts} routed ones, most likely. As it is, the trace is refused."
    return Finding(code="ids_beyond_experts", severity="error", detail=detail, remedy=AS_NONE.format(experts) + ".")


def told_unrouted(expert: int, experts: int) -> Finding:
    """Return the finding of an id among the routed ones that every token has."""
    detail = f"Every token lists id {expert}, in all layers, beside others that change: a shared expert that is "
    detail += f"numbered among the routed ones, most likely. A plan would place it as one of {experts}, the hottest of "
    detail += "every layer."
    remedy = "Take it out, and renumber the others from 0, if the router does not choose it."
    return Finding(code="ids_beyond_experts", severity="warning", detail=detail, remedy=remedy)


def told_beyond(provenance: Provenance) -> list[Finding]:
    """Return the finding of what the reader took for no routed expert, as the format tells it."""
    if not provenance.beyond:
        return []
    remedy = "Nothing, if that is so. Else record without it, or say how many routed experts there are (`num_experts`)."
    return [Finding(code="ids_beyond_experts", severity="note", detail=provenance.beyond, remedy=remedy)]


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

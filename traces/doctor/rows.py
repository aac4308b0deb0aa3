"""Rows that no token made: nothing but zeros, repeats of the row before, a single id."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import share
from traces.doctor.kernels import REPEATED, UNIFORM, ZERO
from traces.doctor.observing import PHASES, UNKNOWN, Observation
from traces.repeats import LEAST_ROWS, LEAST_SHARE, Repeats
from traces.support.shown import runs

__all__ = ["row_findings"]

OF_PHASE = ("prompt", "generated")


def row_findings(seen: Observation) -> Iterator[Finding]:
    """Tell rows of nothing but zeros, and dummy rows."""
    kinds = seen.seen.rows.sum(axis=0)
    first = seen.seen.first
    if (zero := int(kinds[ZERO])) > 0:
        yield _zeros(seen, zero, int(first[ZERO]))
    partly = (seen.seen.blank > 0) & (seen.seen.tokens.sum(axis=0) > 0)
    if partly.any():
        yield _partly(seen, partly)
    repeated, uniform = int(kinds[REPEATED]), int(kinds[UNIFORM])
    if uniform:
        yield _single(seen, uniform, int(first[UNIFORM]))
    if not Repeats.tells(seen.trace):
        return
    if repeated < max(LEAST_ROWS, LEAST_SHARE * seen.rows) and (common := seen.common_row()) is not None:
        yield _common(seen, *common)
    if repeated < LEAST_ROWS:
        return
    many = repeated >= LEAST_SHARE * seen.rows
    detail = f"{repeated:,} of {seen.rows:,} rows ({share(repeated, seen.rows)}) repeat the row before, from row "
    detail += f"{int(first[REPEATED]):,} on: "
    if many:
        detail += (
            "padding of CUDA graphs, dummy batches or warm-up, most likely. A plan takes them for traffic, and makes "
        )
        detail += "room for tokens that no user sent."
    else:
        detail += "text that repeats itself, or a little padding. So few move no plan."
    remedy = "Leave them out with `drop_dummy_rows`, or record without padding."
    yield Finding(code="repeated_rows", severity="warning" if many else "note", detail=detail, remedy=remedy)


def _single(seen: Observation, uniform: int, first: int) -> Finding:
    detail = f"{uniform:,} of {seen.rows:,} rows ({share(uniform, seen.rows)}) hold a single id, from row {first:,} "
    detail += f"on, which no token chooses {seen.trace.top_k} times: dummy batches or a buffer that was filled, most "
    detail += "likely. As it is, the trace is refused."
    remedy = "Leave them out with `drop_dummy_rows`."
    return Finding(code="repeated_rows", severity="error", detail=detail, remedy=remedy)


def _common(seen: Observation, count: int, first: int) -> Finding:
    """Tell one row that comes again and again between others."""
    detail = f"{count:,} of {seen.rows:,} rows ({share(count, seen.rows)}) are the same as row {first:,}, between "
    detail += "others: padding or dummy requests in batches with real ones, most likely. A plan takes them for "
    detail += "traffic, and makes room for tokens that no user sent."
    remedy = f"Take the rows that equal row {first:,} out, or record without padding; `drop_dummy_rows` leaves out "
    remedy += "those only that follow one another."
    return Finding(code="repeated_rows", severity="warning", detail=detail, remedy=remedy)


def _zeros(seen: Observation, zero: int, first: int) -> Finding:
    by_phase = seen.seen.rows[:, ZERO].reshape(-1, PHASES).sum(axis=0)
    where = f"from row {first:,} on"
    if by_phase[UNKNOWN] == 0:
        where += "; " + " and ".join(
            f"{int(by_phase[phase]):,} of them in {name} tokens" for phase, name in enumerate(OF_PHASE)
        )
    times = f"{seen.trace.top_k} times" if seen.trace.top_k > 1 else f"in all of {seen.trace.num_layers} layers"
    detail = (
        f"{zero:,} of {seen.rows:,} rows ({share(zero, seen.rows)}) are all zero, {where}. No token chooses expert 0 "
    )
    detail += f"{times}: the buffer was not written there. "
    if zero == seen.rows:
        detail += "The kernel that ran returns no routing, so there is nothing to plan from."
        remedy = "Record with another MoE kernel: some fused ones don't return routed experts. Or record counts."
    else:
        detail += "Counted as tokens, they would make expert 0 the hottest of every layer."
        remedy = (
            "Leave them out with `drop_dummy_rows`. If they are all prompts, prefill used a kernel that returns no "
        )
        remedy += "routing: a plan of what is left is for decode alone, or record again with another kernel."
    return Finding(code="all_zero_rows", severity="error", detail=detail, remedy=remedy)


def _partly(seen: Observation, layers: npt.NDArray[np.bool_]) -> Finding:
    """Tell tokens that are all zero in some layers, and not in others."""
    most, listed = int(seen.seen.blank[layers].max()), runs(seen.trace.layer_ids[layers].tolist())
    detail = f"In layer(s) {listed}, up to {most:,} of {seen.rows:,} tokens are all zero, though they have experts "
    detail += "in other "
    detail += "layers: not written there, or zero-computation experts that come out as 0. Counted, they would make "
    detail += "expert "
    detail += "0 the hottest of the layer."
    remedy = "Record again; tokens can't be left out in single layers."
    return Finding(code="all_zero_rows", severity="error", detail=detail, remedy=remedy)

"""Counts of more experts than the router has: a shared expert that is fused with the routed ones, zero experts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import Evidence, share
from traces.doctor.ids import told_from_one
from traces.experts_base import counted_from_one
from traces.support.shown import runs

__all__ = ["settle_counts"]

LEAST_LAYERS = 2


def settle_counts(evidence: Evidence, stated: int | None) -> tuple[Evidence, list[Finding]]:
    """Return the loads of the routed experts, and what the others are.

    Parameters
    ----------
    evidence : Evidence
        Of counts.
    stated : int or None
        Experts per layer, as the caller says.
    """
    load = evidence.load
    if stated in (None, load.shape[1] - 1) and counted_from_one(load):
        return replace(evidence, load=load[:, 1:]), [told_from_one(load.shape[1], columns=True)]
    if stated is not None and load[:, stated:].any():
        beyond = stated + np.flatnonzero(load[:, stated:].any(axis=0))
        detail = f"Experts {runs(beyond.tolist())} have {share(load[:, stated:].sum(), load.sum())} of the load, and "
        detail += (
            f"`num_experts` is {stated}: a fused shared expert, zero-computation experts, or another model. A plan "
        )
        detail += "would place them as routed experts."
        remedy = "Leave these columns out of the counts, or check that `model` is the one that was recorded."
        finding = Finding(code="ids_beyond_experts", severity="error", detail=detail, remedy=remedy)
        return replace(evidence, load=load[:, :stated]), [finding]
    if _last_is_shared(evidence):
        experts = load.shape[1] - 1
        detail = f"Expert {experts} has the same load in every layer, one token in each list: a shared expert that is "
        detail += f"fused with {experts} routed ones, most likely. A plan would place it as the hottest of every layer."
        remedy = "Leave the last column out of the counts."
        finding = Finding(code="ids_beyond_experts", severity="warning", detail=detail, remedy=remedy)
        return replace(evidence, load=load[:, :experts]), [finding]
    return evidence, []


def _last_is_shared(evidence: Evidence) -> bool:
    """Whether the last column counts every token: the same in all layers, and their loads are whole multiples of it."""
    load = evidence.load[evidence.recorded]
    if len(load) < LEAST_LAYERS or load.shape[1] < 4 or not evidence.is_counted:
        return False
    last, total = load[:, -1], load.sum(axis=1)
    if last[0] <= 0 or (last != last[0]).any() or (total != total[0]).any() or total[0] % last[0]:
        return False
    per_token = total[0] / last[0]
    return bool(1 < per_token < load.shape[1] / 2 and (load[:, :-1].max() < last[0] or per_token > 2))

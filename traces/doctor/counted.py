"""Counts of more experts than the router has: a shared expert that is fused with the routed ones, zero experts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import Evidence, share
from traces.doctor.ids import told_from_one, told_unrouted
from traces.experts_base import counted_from_one
from traces.support.shown import runs

__all__ = ["settle_counts"]

LEAST_LAYERS = 2
CERTAIN = 2  # experts per token; with more, counts that are as even are no chance, however hot another one is


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
    shared = _shared(evidence)
    experts = load.shape[1] - len(shared)
    if len(shared) and int(shared[0]) < experts:
        return evidence, [told_unrouted(int(shared[0]), load.shape[1])]
    if len(shared):
        detail = f"Expert {runs(shared.tolist())} has the same load in every layer, one token in each list: a shared "
        detail += f"expert that is fused with {experts} routed ones, most likely. A plan would place it as the hottest "
        detail += "of every layer."
        remedy = f"Leave the last {'column' if len(shared) == 1 else f'{len(shared)} columns'} out of the counts."
        finding = Finding(code="ids_beyond_experts", severity="warning", detail=detail, remedy=remedy)
        return replace(evidence, load=load[:, :experts]), [finding]
    return evidence, []


def _shared(evidence: Evidence) -> npt.NDArray[np.int64]:
    """Return the columns that count every token: the same in all layers, whose loads are whole multiples of them.

    They are the last ones, or a single one.
    """
    load, none = evidence.load[evidence.recorded], np.zeros(0, np.int64)
    if len(load) < LEAST_LAYERS or load.shape[1] < 4 or not evidence.is_counted:
        return none
    total, experts = load.sum(axis=1), load.shape[1]
    same = np.flatnonzero((load == load[0]).all(axis=0) & (load[0] == load[0].max()) & (load[0] > 0))
    same = same if len(same) else np.flatnonzero((load == load[0]).all(axis=0) & (load[0] > 0))[-1:]
    if not len(same) or (total != total[0]).any():
        return none
    tokens, last = load[0, same[0]], int(same[0]) == experts - len(same)
    per_token = total[0] / tokens
    if per_token % 1 or not len(same) < per_token < experts / 2 or not (last or len(same) == 1):
        return none
    # No expert has more tokens than there are.
    hottest = np.delete(load, same, axis=1).max()
    return same if hottest < tokens or (last and per_token > CERTAIN) else none

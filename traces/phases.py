"""The phases of serving: prompts are read (prefill), then tokens are generated one at a time (decode).

Their routing differs, and engines that serve them by different instances want a plan for each.
"""

from __future__ import annotations

import numpy as np

from traces.counts import LoadCounts
from traces.support.errors import InputError
from traces.support.words import Phase
from traces.trace import Trace

__all__ = ["PHASES", "of_phase"]

PHASES: dict[Phase, int] = {"prefill": 0, "decode": 1}  # as in the column `phase`


def of_phase(loaded: Trace | LoadCounts, phase: Phase | None) -> Trace | LoadCounts:
    """Return the tokens of one phase, all where None is given.

    Parameters
    ----------
    loaded : Trace or LoadCounts
    phase : {"prefill", "decode"} or None

    Raises
    ------
    InputError
        If the phases of the tokens are not known.
    """
    if phase is None:
        return loaded
    if not isinstance(loaded, Trace) or "phase" not in loaded.columns:
        what = (
            "counts, in which tokens have no phase"
            if isinstance(loaded, LoadCounts)
            else "tokens whose phases are not recorded"
        )
        raise InputError.of(
            "no_phases",
            "/phase",
            f"{loaded.provenance.source} has {what}.",
            "Leave `phase` out, or record each phase into a trace of its own. Responses have phases where they carry "
            "their numbers of prompt and completion tokens.",
        )
    code = PHASES[phase]
    return loaded.where(lambda batch: np.asarray(batch.phase) == code, f"Tokens of one phase only: {phase}.")

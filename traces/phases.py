"""The phases of serving: prompts are read (prefill), then tokens are generated one at a time (decode).

Their routing differs, and engines that serve them by different instances want a plan for each.
"""

from __future__ import annotations

import numpy as np

from traces.counts import LoadCounts
from traces.support.errors import InputError
from traces.support.words import Phase
from traces.trace import Trace

__all__ = ["PHASES", "has_phase", "of_phase", "phase_or_all"]

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


def phase_or_all(trace: Trace, phase: Phase) -> tuple[Trace, tuple[str, ...]]:
    """Return the tokens of a phase where the trace tells phases and has some of it, else all of them, and a note.

    Parameters
    ----------
    trace : Trace
    phase : {"prefill", "decode"}
    """
    if "phase" not in trace.columns:
        return trace, ("The trace does not tell phases: its tokens stand for this one.",)
    if not has_phase(trace, phase):
        return trace, (f"The trace has no tokens of {phase}: those of the other phase stand for it.",)
    chosen = of_phase(trace, phase)
    assert isinstance(chosen, Trace)
    return chosen, ()


def has_phase(trace: Trace, phase: Phase) -> bool:
    """Whether a trace that tells phases has tokens of one; takes a pass as far as the first."""
    return any((np.asarray(batch.phase) == PHASES[phase]).any() for batch in trace.batches())

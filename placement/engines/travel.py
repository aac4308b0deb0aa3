"""What an engine says of an objective, as far as the recorded tokens can carry it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from placement.engines.engine import EngineChoice

if TYPE_CHECKING:
    from traces import Profile

__all__ = ["travel_of"]


def travel_of(choice: EngineChoice, profile: Profile) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields of an `Objective` that an engine settles, and notes on what the trace can't carry.

    Parameters
    ----------
    choice : EngineChoice
    profile : Profile
        Counts have no tokens, whose messages per GPU or node could be told; traces without `seq_id` know no sequences.

    Returns
    -------
    fields : dict
        execution, dedup, ownership, replica_policy; None where the engine has none.
    notes : tuple of str
    """
    engine = choice.engine
    fields: dict[str, Any] = {
        "execution": engine.execution,
        "dedup": engine.dedup,
        "ownership": engine.ownership,
        "replica_policy": choice.replica_policy,
    }
    notes = []
    if engine.dedup in ("gpu", "node") and profile.sample is None:
        fields["dedup"] = "none"
        notes.append(
            f"{engine.title} sends one message per {engine.dedup.replace('gpu', 'GPU')}, but this trace holds counts "
            "only: messages are counted per expert."
        )
    sample = profile.sample
    if engine.ownership == "sequence" and (sample is None or bool((sample.seq_id < 0).any())):
        fields["ownership"] = "token"
        if sample is not None:
            notes.append(
                f"{engine.title} keeps a sequence on one rank, but this trace has no seq_id: homes are per token."
            )
    return fields, tuple(notes)

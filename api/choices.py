"""How tokens travel in a replay, and what is counted of them: as asked, else as the plan was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from placement.problem.objective import Dedup, Execution, Ownership, ReplicaPolicy

__all__ = ["CHOICES", "MAX_DECODE_BATCH", "decode_batch_of", "merge_choices", "recorded_choices"]

MAX_DECODE_BATCH = 1_000_000  # tokens

CHOICES = {"execution": Execution, "dedup": Dedup, "ownership": Ownership, "replica_policy": ReplicaPolicy}


def recorded_choices(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices that a plan's provenance records; unknown ones are left to the defaults."""
    objective = provenance.get("objective")
    if not isinstance(objective, dict):
        return {}
    known = {name: objective.get(name) for name in CHOICES}
    return {name: value for name, value in known.items() if value in get_args(CHOICES[name])}


def merge_choices(made_for: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices of a replay: what is asked wins, None is not asked.

    Parameters
    ----------
    made_for : mapping
        Choices of the plan.
    asked : mapping
        Choices of the replay.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    kept = dict(made_for)
    if "execution" in given and given["execution"] != kept.get("execution"):
        kept.pop("replica_policy", None)  # a policy of the other execution
    return kept | given


def decode_batch_of(objective: Any, asked: int | None, execution: str | None) -> int | None:
    """Return the tokens per batch that activated experts are counted over in a replay; None where they are not.

    Parameters
    ----------
    objective : mapping, or anything
        Recorded objective of the plan: its batch counts where activated experts have a weight, under dispatch.
    asked : int or None
        Wins.
    execution : str or None
        Of the replay.
    """
    if asked is not None or execution != "dispatch" or not isinstance(objective, Mapping):
        return asked
    weight, batch = objective.get("activated_weight"), objective.get("decode_batch")
    if not isinstance(weight, (int, float)) or not weight > 0 or not isinstance(batch, int):
        return None
    return batch if 1 <= batch <= MAX_DECODE_BATCH else None

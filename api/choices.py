"""How tokens travel in a replay: as asked, else as the plan was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from placement.objective import CopyPolicy, Dedup, Execution, Ownership

__all__ = ["CHOICES", "merge_choices", "recorded_choices"]

CHOICES = {"execution": Execution, "dedup": Dedup, "ownership": Ownership, "copy_policy": CopyPolicy}


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
        kept.pop("copy_policy", None)  # a policy of the other execution
    return kept | given

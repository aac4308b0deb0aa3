"""A problem in a few lines."""

from __future__ import annotations

from dataclasses import fields

from placement.problem.constraints import Constraints
from placement.problem.objective import SettledObjective
from placement.problem.sizes import Sizes
from traces.support.shown import Facts, number, runs, shorten

__all__ = ["problem_shown"]

WEIGHT = "_weight"


def problem_shown(sizes: Sizes, objective: SettledObjective, engine: str | None) -> tuple[str, Facts]:
    """Return what a problem shows: its sizes, how tokens travel, what has a weight, and which constraints there are.

    Parameters
    ----------
    sizes : Sizes
    objective : SettledObjective
    engine : str or None
    """
    names = [item.name for item in fields(objective) if item.name.endswith(WEIGHT)]
    weights = {name.removesuffix(WEIGHT): float(getattr(objective, name) or 0.0) for name in names}
    given, usual = sizes.constraints, Constraints()
    names = [item.name for item in fields(Constraints) if getattr(given, item.name) != getattr(usual, item.name)]
    redundant = sizes.num_gpus * sizes.slots_per_gpu - sizes.num_experts
    travel = f"{objective.execution}, replica policy {objective.replica_policy}"
    if objective.execution == "dispatch":
        travel += f", dedup {objective.dedup}, ownership {objective.ownership}"
    rows = {
        "profile": f"{sizes.num_layers} layers ({runs(sizes.layer_ids.tolist())}), {sizes.num_experts} experts",
        "topology": f"{shorten(sizes.topology.name, 40)}, {sizes.num_gpus} GPUs of {sizes.slots_per_gpu} slots, "
        f"{redundant} beyond one per expert",
        "execution": travel,
        "weights": ", ".join(f"{name} {number(value)}" for name, value in weights.items() if value) or "none",
        "constraints": shorten(", ".join(f"{name}={getattr(given, name)!r}" for name in names)) or "none",
    }
    if engine is not None:
        rows["engine"] = engine
    return "Problem", rows

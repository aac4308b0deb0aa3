"""What a problem leaves open, settled: slots from redundant experts, the objective from engine and caps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from placement.engines import engine_of, travel_of
from placement.problem.constraints import Constraints
from placement.problem.objective import Objective, SettledObjective
from placement.topology.topology import Topology
from traces import Profile, Violations

__all__ = ["check_kinds", "check_replicas", "counts_defaults", "settle_objective", "settle_slots"]

REMEDY = (
    "Leave it out: counts are planned as a dispatch with a message per expert, by load. Or record a trace with token "
    "identity (topk_ids)."
)

KINDS: dict[str, tuple[type, str]] = {
    "profile": (Profile, Profile.MADE_BY),
    "topology": (Topology, Topology.MADE_BY),
    "slots_per_gpu": (Integral, "Give a whole number."),
    "objective": (Objective, "Give a placement.Objective."),
    "constraints": (Constraints, "Give placement.Constraints."),
}


def check_kinds(given: Mapping[str, Any]) -> None:
    """Refuse fields of a problem that are of another type.

    Raises
    ------
    InputError
        With every such field.
    """
    found = Violations()
    for name, (kind, remedy) in KINDS.items():
        if not isinstance(value := given[name], kind):
            found.add("wrong_type", f"/{name}", f"{type(value).__name__} is no {kind.__name__}.", remedy)
    found.raise_if_any()


def settle_slots(slots: int, redundant: int | None, num_experts: int, num_gpus: int, found: Violations) -> int:
    """Return the slots per GPU.

    Parameters
    ----------
    slots : int
        As asked; 0 is not asked.
    redundant : int or None
        Slots of a layer beyond one per expert.
    num_experts, num_gpus : int
    found : Violations
        Takes what does not fit.
    """
    if redundant is None:
        return slots or math.ceil(num_experts / num_gpus)
    wanted = math.ceil((num_experts + redundant) / num_gpus)
    pointer = "/redundant_experts"
    if redundant < 0:
        found.add("redundant_experts_range", pointer, f"{redundant} redundant experts.", "Give at least 0.")
    elif wanted * num_gpus != num_experts + redundant:
        detail = f"{num_experts} + {redundant} experts can't be spread evenly over {num_gpus} GPUs."
        few, many = (wanted - 1) * num_gpus - num_experts, wanted * num_gpus - num_experts
        found.add("redundant_experts_uneven", pointer, detail, f"Give {f'{few} or ' if few >= 0 else ''}{many}.")
    elif slots not in (0, wanted):
        detail = f"{redundant} redundant experts make {wanted} slots per GPU, not {slots}."
        found.add("slots_differ", pointer, detail, "Give redundant_experts or slots_per_gpu, not both.")
    return wanted


def settle_objective(
    objective: Objective, engine: str | None, constraints: Constraints, profile: Profile
) -> tuple[SettledObjective, str | None]:
    """Return the objective with everything said, and the engine with its algorithm.

    Raises
    ------
    InputError
        If the engine is unknown, a choice has no effect, or choices need tokens where there are counts only; all of
        these at once.
    """
    defaults = counts_defaults(profile)
    if engine is not None:
        choice = engine_of(engine)
        engine, (defaults, _) = str(choice), travel_of(choice, profile)
    if profile.sample is None and not isinstance(objective, SettledObjective):
        _check_counts(objective, constraints, profile)
    capped = constraints.load_cap is not None or bool(constraints.layer_load_caps)
    return objective.settled(capped=capped, defaults=defaults), engine


def counts_defaults(profile: Profile) -> dict[str, Any] | None:
    """Return what is planned for where counts leave the choice: a dispatch with a message per expert; None for tokens.

    Statistics with pairs of layers (MoETuner's) leave tokens free to go straight from layer to layer.
    """
    if profile.sample is not None:
        return None
    return {"dedup": "none"} | ({"execution": "dispatch"} if profile.affinity is None else {})


def _check_counts(objective: Objective, constraints: Constraints, profile: Profile) -> None:
    """Refuse, all at once, what is asked for and needs tokens.

    Raises
    ------
    InputError
    """
    found = Violations()

    def need(pointer: str, what: str) -> None:
        detail = f"There are counts per expert only, no tokens: {what}."
        found.add("counts_only", pointer, detail, REMEDY)

    if objective.execution == "context_coherent" and profile.affinity is None:
        need("/objective/execution", "which experts follow each other is not known")
    if objective.execution != "context_coherent" and objective.dedup not in (None, "none"):
        need("/objective/dedup", "which experts share a message is not known")
    if objective.ownership == "sequence":
        need("/objective/ownership", "sequences are not known")
    if objective.ownership == "measured" and profile.source_load is None:
        need("/objective/ownership", "the ranks that they come from are not known")
    if objective.activated_weight:
        need("/objective/activated_weight", "activated experts are counted over batches of tokens")
    if constraints.load_quantile is not None and profile.windows is None and profile.sequence_load is None:
        need("/constraints/load_quantile", "how much loads vary is not known")
    if constraints.load_groups is not None and profile.windows is None and profile.sequence_load is None:
        need("/constraints/load_groups", "there are neither windows nor sequences")
    found.raise_if_any()


def check_replicas(engine: str | None, redundant: int | None, spare: int, found: Violations) -> None:
    """Check that an engine that is to have redundant experts takes any.

    Parameters
    ----------
    engine : str or None
    redundant : int or None
        Slots of a layer beyond one per expert, as asked.
    spare : int
        Those that there are.
    found : Violations
        Takes what does not fit.
    """
    if engine is None or (owner := engine_of(engine).engine).has_replicas or not (redundant or spare > 0):
        return
    if redundant:
        detail = f"{owner.title} has no redundant experts: it could not load the plan."
        found.add("no_redundant_experts", "/redundant_experts", detail, "Leave them out, or name another engine.")
        return
    detail = f"{owner.title} has no redundant experts, but a layer has {spare} slots more than experts."
    remedy = "Use as many slots as experts, on GPUs that divide them, or say the execution in place of the engine."
    found.add("no_redundant_experts", "/slots_per_gpu", detail, remedy)

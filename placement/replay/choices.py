"""How tokens travel in a replay, and what is counted of them: as asked, else as the plan was made for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, get_args

from placement.engines import engine_of
from placement.plan.plan import Plan
from placement.problem.objective import Dedup, Execution, Objective, Ownership, ReplicaPolicy, SettledObjective
from placement.topology.file import topology_from_dict
from placement.topology.topology import Topology
from traces import InputError, LoadCounts, Trace, Violations

__all__ = [
    "CHOICES",
    "MAX_DECODE_BATCH",
    "choices_of",
    "decode_batch_of",
    "engine_choices",
    "merge_choices",
    "recorded_choices",
    "recorded_topology",
    "replayed_objective",
]

MAX_DECODE_BATCH = 1_000_000  # tokens

CHOICES = {"execution": Execution, "dedup": Dedup, "ownership": Ownership, "replica_policy": ReplicaPolicy}
OF_DISPATCH = ("dedup", "ownership")


def choices_of(objective: SettledObjective) -> dict[str, Any]:
    """Return the options of `placement.evaluate` that replay as an objective says: those that have an effect."""
    choices: dict[str, Any] = {"execution": objective.execution, "replica_policy": objective.replica_policy}
    if objective.execution == "dispatch":
        choices |= {name: getattr(objective, name) for name in OF_DISPATCH}
        if objective.activated_weight:
            choices["decode_batch"] = objective.decode_batch
    return choices


def recorded_choices(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices that a plan's provenance records; unknown ones are left to the defaults."""
    objective = provenance.get("objective")
    if not isinstance(objective, Mapping):
        return {}
    known = {name: objective.get(name) for name in CHOICES}
    return {name: value for name, value in known.items() if value in get_args(CHOICES[name])}


def merge_choices(made_for: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices of a replay: what is asked wins, None is not asked.

    Choices of the plan that have no effect in the replay are left out; those that are asked for stay.

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
    if given.get("execution", kept.get("execution")) != "dispatch":
        for name in OF_DISPATCH:
            kept.pop(name, None)
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


def engine_choices(
    text: str | None, tokens: Trace | LoadCounts | Collection[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what an engine says of the way that tokens travel, as far as the tokens know their sequences, and notes.

    Parameters
    ----------
    text : str or None
        As in ``sglang:static``; None says nothing.
    tokens : Trace, LoadCounts, or collection of str
        The columns that they have, where they are not at hand.

    Raises
    ------
    InputError
        If there is no such engine or algorithm.
    """
    if text is None:
        return {}, ()
    choice = engine_of(text)
    engine = choice.engine
    said: dict[str, Any] = {"execution": engine.execution, "dedup": engine.dedup, "ownership": engine.ownership}
    said |= {"replica_policy": choice.replica_policy}
    notes: tuple[str, ...] = ()
    if engine.ownership == "sequence" and not isinstance(tokens, LoadCounts) and not _knows_sequences(tokens):
        said["ownership"] = "token"
        notes = (f"{engine.title} keeps a sequence on one rank, but this trace has no seq_id: homes are per token.",)
    return {name: value for name, value in said.items() if value is not None}, notes


def _knows_sequences(tokens: Trace | Collection[str]) -> bool:
    if not isinstance(tokens, Trace):
        return "seq_id" in tokens
    first = next(iter(tokens.read(1)), None)
    return first is not None and first.seq_id is not None


def replayed_objective(
    provenance: Mapping[str, Any], asked: Mapping[str, Any], decode_batch: int | None
) -> tuple[SettledObjective, int | None]:
    """Return how a plan's tokens are replayed, and the batch over which activated experts are counted, or None.

    Parameters
    ----------
    provenance : mapping
        The plan's.
    asked : mapping
        Choices of the replay under the names of `CHOICES`; None is not asked.
    decode_batch : int or None

    Raises
    ------
    InputError
        If a choice is unknown, or one that is asked for has no effect: all of them at once.
    """
    choices = {"execution": "context_coherent"} | merge_choices(recorded_choices(provenance), asked)
    dispatch = choices["execution"] == "dispatch"
    found = Violations()
    if choices["execution"] in get_args(Execution) and not dispatch:
        for name in OF_DISPATCH:
            if choices.pop(name, None) is not None:
                detail = f"{name} is for execution 'dispatch'; under 'context_coherent' it has no effect."
                found.add("option_unused", f"/{name}", detail, "Replay with execution 'dispatch', or leave it out.")
        if decode_batch is not None:
            detail = "Activated experts are counted with home ranks, which only execution 'dispatch' knows."
            remedy = "Use 'dispatch', or leave the batch out."
            found.add("activated_execution", "/decode_batch", detail, remedy)
    batch = decode_batch_of(provenance.get("objective"), decode_batch, choices["execution"])
    if dispatch and batch is not None:
        choices |= {"activated_weight": 1.0, "decode_batch": batch}
    if choices.get("replica_policy") is None:
        choices["replica_policy"] = "same_node" if dispatch else "fair"
    if dispatch:
        choices = {"dedup": "gpu", "ownership": "token"} | choices
    objective = None
    try:
        objective = Objective(**choices).settled(capped=False)
    except InputError as error:
        found.extend(error)
    found.raise_if_any()
    assert objective is not None
    return objective, batch


def recorded_topology(plan: Plan, place: str = "") -> Topology | None:
    """Return the topology in a plan's provenance, None where it has none.

    Raises
    ------
    InputError
        If it is no topology, or has other nodes than the plan: which of the two is meant can't be known.
    """
    content = plan.provenance.get("topology")
    if content is None:
        return None
    pointer = f"{place}/provenance/topology"
    recorded = topology_from_dict(content, pointer)
    if recorded.gpus_per_node != plan.gpus_per_node:
        sizes, own = list(recorded.gpus_per_node), list(plan.gpus_per_node)
        detail = f"Nodes of {sizes} GPUs, but the plan's gpus_per_node are {own}."
        raise InputError.of("nodes_differ", f"{pointer}/gpus_per_node", detail, "Correct the plan, or name a topology.")
    return recorded

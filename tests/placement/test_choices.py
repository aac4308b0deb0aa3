"""A plan is replayed as it was made for; what has no effect is refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from placement import Objective, Plan, Topology, evaluate
from placement.replay.choices import choices_of, decode_batch_of, merge_choices, recorded_choices, replayed_objective
from placement.topology.file import topology_to_dict
from tests.builders.traces import random_trace
from traces import InputError

MACHINE = Topology.parse("2x2")
DISPATCH = Objective(
    execution="dispatch",
    dedup="node",
    ownership="sequence",
    replica_policy="same_gpu",
    activated_weight=1.0,
    decode_batch=7,
)
# Tokens of 5 sequences.
TOKENS = random_trace(0, 60, 2, 6, seq_id=np.arange(60) // 12)


def plan_for(objective: Objective | None, topology: Topology | None = MACHINE) -> Plan:
    """Plan with replicas that records what it was made for."""
    provenance: dict[str, Any] = {} if objective is None else {"objective": asdict(objective)}
    if topology is not None:
        provenance["topology"] = topology_to_dict(topology)
    table = [[0, 1, 2, 3, 1, 0, 4, 5], [5, 4, 3, 2, 1, 0, 2, 4]]
    return Plan.of(np.array(table), layer_ids=[0, 1], num_experts=6, gpus_per_node=(2, 2), provenance=provenance)


def test_everything_is_as_the_plan_records_it() -> None:
    """Without any option: the same as with all of them."""
    plan, trace = plan_for(DISPATCH), TOKENS
    found = evaluate(plan, trace)
    assert (found.execution, found.dedup, found.ownership, found.replica_policy) == (
        "dispatch",
        "node",
        "sequence",
        "same_gpu",
    )
    assert found.activated_experts is not None
    bare = plan_for(None, None)
    options: dict[str, Any] = choices_of(DISPATCH.settled(capped=False))
    assert options["decode_batch"] == 7
    assert evaluate(bare, trace, MACHINE, **options) == found


def test_what_is_given_wins() -> None:
    """One option changes one thing; another execution brings its own replica policy."""
    plan, trace = plan_for(DISPATCH), TOKENS
    assert evaluate(plan, trace, dedup="none").dedup == "none"
    assert evaluate(plan, trace, dedup="none").ownership == "sequence"
    context = evaluate(plan, trace, execution="context_coherent")
    assert (context.execution, context.dedup, context.replica_policy) == ("context_coherent", None, "fair")
    assert context.activated_experts is None
    other = evaluate(plan_for(Objective()), trace, execution="dispatch")
    assert (other.dedup, other.ownership, other.replica_policy) == ("gpu", "token", "same_node")
    slow = Topology.of((2, 2), rank_cost_matrix=1.0 - np.eye(4))
    assert evaluate(plan, trace, slow).traffic != evaluate(plan, trace).traffic


def test_a_bare_plan_travels_from_layer_to_layer() -> None:
    """Where neither plan nor caller says it, it is context-coherent."""
    assert evaluate(plan_for(None), TOKENS).execution == "context_coherent"


def test_a_plan_without_topology_needs_one() -> None:
    """Links can't be guessed."""
    with pytest.raises(InputError) as caught:
        evaluate(plan_for(DISPATCH, None), TOKENS)
    (violation,) = caught.value.violations
    assert (violation.code, violation.pointer) == ("topology_unknown", "/topology")
    assert "`topology`" in violation.remedy


def test_a_recorded_topology_of_other_nodes_is_refused() -> None:
    """Which of the two is meant can't be known."""
    with pytest.raises(InputError, match="nodes_differ"):
        evaluate(plan_for(DISPATCH, Topology.parse("1x4")), TOKENS)


@pytest.mark.parametrize("execution", [None, "context_coherent"])
def test_options_without_effect_are_refused_at_once(execution: Any) -> None:
    """Messages, homes and batches are those of a dispatch; an unknown policy is told beside them."""
    options: dict[str, Any] = {"dedup": "gpu", "ownership": "token", "replica_policy": "nearest", "decode_batch": 8}
    with pytest.raises(InputError) as caught:
        evaluate(plan_for(Objective()), TOKENS, execution=execution, **options)
    found = [(item.code, item.pointer) for item in caught.value.violations]
    assert found == [
        ("option_unused", "/dedup"),
        ("option_unused", "/ownership"),
        ("activated_execution", "/decode_batch"),
        ("unknown_choice", "/objective/replica_policy"),
    ]
    assert all(item.remedy for item in caught.value.violations)


def test_options_of_a_recorded_dispatch_have_an_effect() -> None:
    """What the plan records counts, so nothing has to be said twice."""
    assert evaluate(plan_for(DISPATCH), TOKENS, ownership="token", decode_batch=3).ownership == "token"


def test_unknown_execution_is_refused() -> None:
    """Whatever else is asked."""
    with pytest.raises(InputError, match="unknown_choice"):
        evaluate(plan_for(None), TOKENS, execution="teleport", dedup="gpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", [None, 3, "x", {"execution": "teleport", "dedup": None}, {}])
def test_records_that_say_nothing_are_left_out(objective: Any) -> None:
    """A plan of another tool may record anything."""
    assert recorded_choices({"objective": objective}) == {}


def test_merging_drops_what_has_no_effect() -> None:
    """Recorded messages and homes are those of a dispatch; a policy is that of its execution."""
    made_for = recorded_choices({"objective": asdict(DISPATCH)})
    assert merge_choices(made_for, {"execution": None}) == made_for
    assert merge_choices(made_for, {"execution": "context_coherent"}) == {"execution": "context_coherent"}
    assert merge_choices(made_for, {"execution": "dispatch"})["replica_policy"] == "same_gpu"
    assert merge_choices({}, {"dedup": "gpu"}) == {"dedup": "gpu"}


@pytest.mark.parametrize(
    ("objective", "asked", "execution", "batch"),
    [
        ({"activated_weight": 1.0, "decode_batch": 8}, None, "dispatch", 8),
        ({"activated_weight": 1.0, "decode_batch": 8}, 3, "dispatch", 3),
        ({"activated_weight": 1.0, "decode_batch": 8}, None, "context_coherent", None),
        ({"activated_weight": 0.0, "decode_batch": 8}, None, "dispatch", None),
        ({"activated_weight": "1", "decode_batch": 8}, None, "dispatch", None),
        ({"activated_weight": 1.0, "decode_batch": 0}, None, "dispatch", None),
        (None, 5, "dispatch", 5),
    ],
)
def test_batches_count_where_they_have_a_weight(objective: Any, asked: Any, execution: str, batch: Any) -> None:
    """As asked, else as recorded under dispatch."""
    assert decode_batch_of(objective, asked, execution) == batch


@pytest.mark.parametrize("aim", [Objective(), DISPATCH, Objective(execution="dispatch", dedup="none")])
def test_choices_of_an_objective_replay_as_it_says(aim: Objective) -> None:
    """They name what has an effect, and nothing else."""
    objective = aim.settled(capped=False)
    choices = choices_of(objective)
    batch = choices.pop("decode_batch", None)
    replayed, counted = replayed_objective({}, choices, batch)
    assert replayed.execution == objective.execution
    assert replayed.replica_policy == objective.replica_policy
    assert counted == (objective.decode_batch if objective.activated_weight else None)
    if objective.execution == "dispatch":
        assert (replayed.dedup, replayed.ownership) == (objective.dedup, objective.ownership)


def test_an_engine_says_how_tokens_travel_and_what_else_is_given_wins() -> None:
    """As the engine does; per token where the trace knows no sequences; without an effect, refused."""
    plan, trace = plan_for(None), random_trace(0, 40, 2, 6)
    found = evaluate(plan, trace, engine="vllm")
    assert (found.execution, found.dedup, found.replica_policy) == ("dispatch", "node", "fair")
    assert found.ownership == "token"
    assert evaluate(plan, trace, engine="vllm", dedup="none").dedup == "none"
    with pytest.raises(InputError, match="option_unused"):
        evaluate(plan, trace, engine="exflow", dedup="gpu")
    with pytest.raises(InputError, match="unknown_engine"):
        evaluate(plan, trace, engine="nosuch")

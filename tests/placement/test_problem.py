"""Problems: every violation with its pointer, several at once; what is not a violation."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from placement import Constraints, Group, LayerCap, Objective, Pin, Problem, Topology
from tests.builders.problems import dispatch
from tests.builders.traces import random_ids
from traces import InputError, LoadCounts, Profile, Provenance, Trace

RNG = np.random.default_rng(0)
IDS = random_ids(RNG, 20, 2, 6)
PROFILE = Profile.of(Trace.of(IDS, num_experts=6, layer_ids=[3, 5]), workers=1)
RANKED = Profile.of(Trace.of(IDS, num_experts=6, source_rank=np.arange(20) % 8), workers=1)
UNSAMPLED = Profile.of(Trace.of(IDS, num_experts=6, source_rank=np.arange(20) % 4 - 1), workers=1, sample_tokens=0)
PARTLY_RANKED = Profile.of(Trace.of(IDS, num_experts=6, source_rank=np.arange(20) % 4 - 1), workers=1)
COUNTS = Profile.of(
    LoadCounts(load=np.ones((2, 6)), layer_ids=np.array([3, 5]), provenance=Provenance(), digest="sha256:0")
)
GRID = Topology.parse("2x2")


def violations(**options: Any) -> set[tuple[str, str]]:
    """Violations of a problem over `PROFILE` on 2x2 GPUs, unless the options say otherwise."""
    with pytest.raises(InputError) as error:
        Problem(**{"profile": PROFILE, "topology": GRID, **options})
    assert all(item.detail for item in error.value.violations)
    return {(item.code, item.pointer) for item in error.value.violations}


C = Constraints
WINDOWED = Profile.of(Trace.of(IDS, num_experts=6, layer_ids=[3, 5]), workers=1, window_tokens=4)
SHORT = Profile.of(Trace.of(IDS, num_experts=6, layer_ids=[3, 5], seq_id=np.zeros(20, int)), workers=1)


@pytest.mark.parametrize(
    ("options", "code", "pointer"),
    [
        ({"slots_per_gpu": -1}, "slots_range", "/slots_per_gpu"),
        ({"slots_per_gpu": 7}, "slots_range", "/slots_per_gpu"),
        ({"slots_per_gpu": 2.0}, "wrong_type", "/slots_per_gpu"),
        ({"profile": Trace.of(IDS, num_experts=6)}, "wrong_type", "/profile"),
        ({"topology": "2x2"}, "wrong_type", "/topology"),
        ({"engine": "megatron", "redundant_experts": 2}, "no_redundant_experts", "/redundant_experts"),
        ({"engine": "megatron", "slots_per_gpu": 5}, "no_redundant_experts", "/slots_per_gpu"),
        ({"objective": {"execution": "dispatch"}}, "wrong_type", "/objective"),
        ({"constraints": {"load_cap": 1.1}}, "wrong_type", "/constraints"),
        ({"slots_per_gpu": 1}, "more_experts_than_slots", "/slots_per_gpu"),
        ({"topology": Topology.of((2,), slots=[3, 2])}, "more_experts_than_slots", "/slots_per_gpu"),
        (
            {"topology": Topology.of((2,), memory_gb=[5, 7]), "expert_bytes": 10**9},
            "memory",
            "/topology/memory_gb/0",
        ),
        ({"constraints": C(extra_bytes=10)}, "no_expert_bytes", "/constraints/extra_bytes"),
        ({"constraints": C(extra_bytes=-1), "expert_bytes": 4}, "extra_bytes_range", "/constraints/extra_bytes"),
        (
            {"constraints": C(extra_bytes=11, extra_replicas=3), "expert_bytes": 4},
            "replica_budgets_differ",
            "/constraints/extra_bytes",
        ),
        (
            {
                "slots_per_gpu": 3,
                "constraints": C(extra_bytes=7, pins=(Pin(expert=0, gpu=0), Pin(expert=0, gpu=1))),
                "expert_bytes": 4,
            },
            "extra_bytes_range",
            "/constraints/extra_bytes",
        ),
        ({"objective": Objective(replica_policy="same_gpu")}, "replica_policy", "/objective/replica_policy"),
        (
            {"profile": COUNTS, "objective": Objective(execution="context_coherent")},
            "counts_only",
            "/objective/execution",
        ),
        (
            {
                "profile": COUNTS,
                "objective": dispatch(dedup="gpu"),
            },
            "counts_only",
            "/objective/dedup",
        ),
        (
            {"objective": dispatch(ownership="measured")},
            "no_source_rank",
            "/objective/ownership",
        ),
        (
            {
                "profile": RANKED,
                "objective": dispatch(ownership="measured"),
            },
            "source_rank_range",
            "/objective/ownership",
        ),
        (
            {
                "profile": PARTLY_RANKED,
                "objective": dispatch(ownership="measured"),
            },
            "no_source_rank",
            "/objective/ownership",
        ),
        (
            {
                "profile": UNSAMPLED,
                "objective": dispatch(dedup="none", ownership="measured"),
            },
            "no_source_rank",
            "/objective/ownership",
        ),
        (
            {"objective": dispatch(ownership="sequence")},
            "no_seq_id",
            "/objective/ownership",
        ),
        ({"constraints": C(load_cap=0.9)}, "load_cap_range", "/constraints/load_cap"),
        ({"constraints": C(load_cap=float("nan"))}, "load_cap_range", "/constraints/load_cap"),
        (
            {"constraints": C(layer_load_caps=(LayerCap(layer_id=3, load_cap=0.9),))},
            "load_cap_range",
            "/constraints/layer_load_caps/0/load_cap",
        ),
        (
            {"constraints": C(layer_load_caps=(LayerCap(layer_id=4, load_cap=1.1),))},
            "layer_unknown",
            "/constraints/layer_load_caps/0/layer_id",
        ),
        (
            {"constraints": C(layer_load_caps=(LayerCap(layer_id=3, load_cap=1.1),) * 2)},
            "layer_cap_twice",
            "/constraints/layer_load_caps/1/layer_id",
        ),
        *(
            (
                {"profile": WINDOWED, "constraints": C(load_cap=1.1, load_quantile=value)},
                "load_quantile_range",
                "/constraints/load_quantile",
            )
            for value in (0.49, 1.0, float("nan"))
        ),
        (
            {"profile": WINDOWED, "constraints": C(load_quantile=0.9)},
            "quantile_without_cap",
            "/constraints/load_quantile",
        ),
        ({"constraints": C(load_cap=1.1, load_quantile=0.9)}, "too_few_groups", "/constraints/load_quantile"),
        (
            {"profile": SHORT, "constraints": C(load_cap=1.1, load_quantile=0.9, load_groups="sequences")},
            "too_few_groups",
            "/constraints/load_quantile",
        ),
        ({"constraints": C(load_cap=1.1, load_groups="sequences")}, "no_seq_id", "/constraints/load_groups"),
        ({"constraints": C(load_groups="days")}, "unknown_choice", "/constraints/load_groups"),  # type: ignore[arg-type]
        (
            {
                "profile": COUNTS,
                "objective": dispatch(dedup="none"),
                "constraints": C(load_cap=1.1, load_quantile=0.9),
            },
            "counts_only",
            "/constraints/load_quantile",
        ),
        ({"constraints": C(pins=(Pin(expert=6, gpu=0),))}, "expert_range", "/constraints/pins/0/expert"),
        ({"constraints": C(pins=(Pin(expert=0, gpu=4),))}, "gpu_range", "/constraints/pins/0/gpu"),
        (
            {"constraints": C(forbidden=(Pin(expert=0, gpu=0, layer_id=4),))},
            "layer_unknown",
            "/constraints/forbidden/0/layer_id",
        ),
        ({"constraints": C(groups=(Group(experts=()),))}, "group_members", "/constraints/groups/0/experts"),
        ({"constraints": C(groups=(Group(experts=(1, 1)),))}, "group_members", "/constraints/groups/0/experts"),
        (
            {"constraints": C(groups=(Group(experts=(0, 1, 2, 3, 4)),))},
            "group_too_large",
            "/constraints/groups/0/experts",
        ),
        (
            {"constraints": C(pins=(Pin(expert=0, gpu=1),), forbidden=(Pin(expert=0, gpu=1, layer_id=5),))},
            "pin_forbidden",
            "/constraints/pins/0",
        ),
        (
            {"constraints": C(pins=tuple(Pin(expert=e, gpu=1) for e in range(3)))},
            "pins_exceed_slots",
            "/constraints/pins",
        ),
        (
            {"constraints": C(pins=tuple(Pin(expert=0, gpu=g) for g in range(4)))},
            "pins_exceed_slots",
            "/constraints/pins",
        ),
        (
            {"constraints": C(forbidden=tuple(Pin(expert=2, gpu=g) for g in range(4)))},
            "forbidden_everywhere",
            "/constraints/forbidden",
        ),
        (
            {"constraints": C(groups=(Group(experts=(0, 1)), Group(experts=(1, 2), layer_id=3)))},
            "group_overlap",
            "/constraints/groups/1",
        ),
        (
            {"constraints": C(pins=(Pin(expert=0, gpu=0), Pin(expert=1, gpu=2)), groups=(Group(experts=(0, 1)),))},
            "group_pins",
            "/constraints/groups/0",
        ),
    ],
)
def test_violation(options: dict[str, Any], code: str, pointer: str) -> None:
    """Each rule has its code and pointer, and nothing else is reported."""
    assert violations(**options) == {(code, pointer)}


def test_several_at_once() -> None:
    """Slots, objective and constraints are checked together."""
    assert violations(
        slots_per_gpu=1,
        objective=Objective(replica_policy="same_node"),
        constraints=C(load_cap=0.5, pins=(Pin(expert=-1, gpu=9, layer_id=0),)),
    ) == {
        ("more_experts_than_slots", "/slots_per_gpu"),
        ("replica_policy", "/objective/replica_policy"),
        ("load_cap_range", "/constraints/load_cap"),
        ("layer_unknown", "/constraints/pins/0/layer_id"),
        ("expert_range", "/constraints/pins/0/expert"),
        ("gpu_range", "/constraints/pins/0/gpu"),
    }


def test_objective_lists_all_violations() -> None:
    """Unknown choices and bad weights are named together."""
    bad: Any = {"execution": "x", "dedup": "y", "traffic_weight": -1, "imbalance_weight": float("nan")}
    with pytest.raises(InputError) as error:
        Objective(**bad)
    assert {item.pointer for item in error.value.violations} == {f"/objective/{name}" for name in bad}


def test_counts_are_enough_without_deduplication() -> None:
    """Loads alone allow dispatch with one message per expert."""
    problem = Problem(
        COUNTS,
        GRID,
        objective=dispatch(dedup="none"),
    )
    assert problem.relative_load.sum(axis=1).tolist() == pytest.approx([1, 1])


def test_experts_need_not_divide() -> None:
    """Six experts on four GPUs get two slots each."""
    problem = Problem(PROFILE, GRID)
    assert (problem.slots_per_gpu, problem.num_slots) == (2, 8)


def test_layers_by_model_id() -> None:
    """Exclusions name model layers, not rows."""
    problem = Problem(PROFILE, GRID, constraints=C(forbidden=(Pin(expert=2, gpu=1, layer_id=5),)))
    assert np.argwhere(~problem.allowed).tolist() == [[1, 2, 1]]
    assert not problem.is_free


def test_problems_of_the_same_content_are_equal() -> None:
    """Copies and what comes back from another process, too."""
    one, other = Problem(PROFILE, GRID, 2), Problem(PROFILE, GRID, 3)
    for same in (Problem(PROFILE, GRID, 2), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert same == one
        assert hash(same) == hash(one)
    assert one != other

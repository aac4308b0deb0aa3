"""Plans: validation, views and the gap."""

from typing import Any

import numpy as np
import pytest

from placement import Plan
from traces import InputError


def plan_of(table: Any, **changes: Any) -> Plan:
    """Plan of a map for 2 GPUs and 3 experts."""
    table = np.asarray(table)
    fields: dict[str, Any] = {
        "physical_to_logical_map": table,
        "layer_ids": np.arange(len(table)),
        "num_experts": 3,
        "num_gpus": 2,
        "slots_per_gpu": 2,
        "gpus_per_node": (2,),
    }
    return Plan(**(fields | changes))


def test_views_count_replicas_and_skip_empty_slots() -> None:
    """-1 is an empty slot: no expert is there."""
    plan = plan_of([[0, 1, 2, -1], [2, 0, 0, 1]])
    assert plan.replicas.tolist() == [[1, 1, 1], [2, 1, 1]]
    assert plan.replicas_on_gpu[0].tolist() == [[1, 0], [1, 0], [0, 1]]
    assert plan.replicas_on_gpu[1].tolist() == [[1, 1], [0, 1], [1, 0]]
    assert plan.gpu_of_slot.tolist() == [0, 0, 1, 1]
    assert plan.num_layers == 2


def test_gpu_of_expert_without_replicas() -> None:
    """Without replicas every expert has one GPU."""
    assert plan_of([[0, -1, 2, 1]]).gpu_of_expert.tolist() == [[0, 1, 1]]


def test_gpu_of_expert_refuses_replicas() -> None:
    """An expert with replicas has no single GPU, and the error says which."""
    with pytest.raises(InputError) as error:
        _ = plan_of([[0, 1, 2, -1], [2, 0, 0, 1]]).gpu_of_expert
    assert [(item.code, item.pointer) for item in error.value.violations] == [
        ("has_replicas", "/physical_to_logical_map/1")
    ]


def test_all_violations_at_once() -> None:
    """Ids out of range, missing experts, node sizes and layer order are listed together."""
    with pytest.raises(InputError) as error:
        plan_of([[0, 1, 2, 3], [0, 1, 1, -2]], layer_ids=np.array([4, 4]), gpus_per_node=(3,))
    assert {(item.code, item.pointer) for item in error.value.violations} == {
        ("expert_out_of_range", "/physical_to_logical_map/0/3"),
        ("expert_out_of_range", "/physical_to_logical_map/1/3"),
        ("expert_missing", "/physical_to_logical_map/1"),
        ("gpus_per_node", "/gpus_per_node"),
        ("layer_ids_order", "/layer_ids"),
    }


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"num_gpus": 0}, "plan_size"),
        ({"num_experts": -5}, "plan_size"),
        ({"num_experts": 10**12}, "plan_size"),
        ({"slots_per_gpu": 3}, "map_shape"),
        ({"gpus_per_node": (3, -1)}, "gpus_per_node"),
        ({"layer_ids": np.array([-1])}, "layer_ids_order"),
        ({"physical_to_logical_map": np.array([[0.0, 1, 2, -1]])}, "map_shape"),
    ],
)
def test_bad_field(changes: dict[str, Any], code: str) -> None:
    """Sizes, shapes and types that do not fit are input errors, not crashes."""
    with pytest.raises(InputError) as error:
        plan_of([[0, 1, 2, -1]], **changes)
    assert code in {item.code for item in error.value.violations}


@pytest.mark.parametrize(
    ("score", "bound", "gap"),
    [(None, 1.0, None), (1.0, None, None), (0.0, 0.0, 0.0), (4.0, 3.0, 0.25), (1.0, 2.0, 0.0)],
)
def test_gap(score: float | None, bound: float | None, gap: float | None) -> None:
    """The gap is relative to the score, never negative, and unknown where the bound is."""
    assert plan_of([[0, 1, 2, -1]], score=score, bound=bound).gap == gap


def test_equality_is_by_content() -> None:
    """Plans with the same content are equal; another map or score makes them differ."""
    plan = plan_of([[0, 1, 2, -1]])
    assert plan == plan_of([[0, 1, 2, -1]])
    assert plan != plan_of([[1, 0, 2, -1]])
    assert plan != plan.replacing(score=1.0)


def test_map_is_read_only_and_detached() -> None:
    """The plan keeps its own read-only map."""
    table = np.array([[0, 1, 2, -1]])
    plan = plan_of(table)
    table[0, 0] = 1
    assert plan.physical_to_logical_map[0, 0] == 0
    assert not plan.physical_to_logical_map.flags.writeable

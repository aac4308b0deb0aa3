"""Plans and topologies as JSON files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement import Plan, Termination, Topology, load_plan, load_topology, save_plan
from placement.files import plan_to_dict, recorded_topology, topology_from_dict, topology_to_dict
from placement.json_files import write_json
from traces import InputError

PLAN = Plan(
    physical_to_logical_map=np.array([[0, 1, 2, -1], [2, 0, 0, 1]]),
    layer_ids=np.array([3, 5]),
    num_experts=3,
    num_gpus=2,
    slots_per_gpu=2,
    gpus_per_node=(1, 1),
    score=0.1 + 0.2,
    bound=0.25,
    termination=Termination(reason="feasible", limit="work", detail="text", deterministic=False),
    provenance={"solver": "x", "seed": 3},
    warnings=("cap missed",),
)


def refused(path: Path, text: str) -> set[tuple[str, str]]:
    """Write a plan file and return the violations on reading it."""
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_plan(path)
    return {(item.code, item.pointer) for item in error.value.violations}


def test_plan_round_trip(tmp_path: Path) -> None:
    """What was saved is loaded, floats to the last bit."""
    save_plan(PLAN, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == PLAN


def test_uneven_nodes_round_trip(tmp_path: Path) -> None:
    """Node sizes that differ are kept as a list."""
    plan = Plan(
        physical_to_logical_map=np.array([[0, 1, 2]]),
        layer_ids=np.array([0]),
        num_experts=3,
        num_gpus=3,
        slots_per_gpu=1,
        gpus_per_node=(2, 1),
    )
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan


def test_unknown_and_missing_fields_together(tmp_path: Path) -> None:
    """Unknown, missing and wrongly typed fields are all named."""
    content = plan_to_dict(PLAN)
    del content["num_gpus"]
    content |= {"extra": 1, "num_experts": True, "warnings": "text"}
    assert refused(tmp_path / "p.json", json.dumps(content)) == {
        ("unknown_field", "p.json#/extra"),
        ("missing_field", "p.json#/num_gpus"),
        ("field_type", "p.json#/num_experts"),
        ("field_type", "p.json#/warnings"),
    }


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("physical_to_logical_map", [[0, 1, 2, 0.5], [2, 0, 0, 1]], "not_integers"),
        ("physical_to_logical_map", [[0, 1, 2], [2, 0, 0, 1]], "not_integers"),
        ("physical_to_logical_map", [[0, 1, 2, 3], [2, 0, 0, 1]], "expert_out_of_range"),
        ("layer_ids", ["a", "b"], "not_integers"),
        ("schema_version", 2, "schema_version"),
        ("termination", {"reason": "feasible", "why": 1}, "unknown_field"),
        ("termination", {"limit": None}, "missing_field"),
        ("termination", {"reason": "feasible", "limit": "patience"}, "termination"),
        ("termination", {"reason": "because"}, "termination"),
        ("num_gpus", 10**12, "plan_size"),
    ],
)
def test_bad_value(tmp_path: Path, field: str, value: Any, code: str) -> None:
    """A bad value is refused with a pointer to its field."""
    found = refused(tmp_path / "p.json", json.dumps(plan_to_dict(PLAN) | {field: value}))
    assert code in {name for name, _ in found}
    assert all(pointer.startswith("p.json#/") for _, pointer in found)


@pytest.mark.parametrize(
    ("field", "value", "code", "place"),
    [
        ("physical_to_logical_map", [[0, 1, 2, -1], [2, 0, True, 1]], "not_integers", "/1/2"),
        ("physical_to_logical_map", [[0, 1, 2, -1], [2, 0, "0", 1]], "not_integers", "/1/2"),
        ("physical_to_logical_map", [[0, 1, 2, -1], 3], "not_integers", "/1"),
        ("layer_ids", [3, [5]], "not_integers", "/1"),
        ("layer_ids", [False, True], "not_integers", "/0"),
        ("gpus_per_node", [1, True], "not_integers", "/1"),
        ("num_gpus", True, "field_type", ""),
        ("score", True, "field_type", ""),
        ("warnings", ["cap missed", 1], "not_text", "/1"),
        ("warnings", [{}], "not_text", "/0"),
        ("termination", {"reason": "optimal", "detail": 5}, "field_type", "/detail"),
        ("termination", {"reason": "optimal", "deterministic": "yes"}, "field_type", "/deterministic"),
        ("termination", {"reason": "optimal", "deterministic": 1}, "field_type", "/deterministic"),
        ("termination", {"reason": True}, "field_type", "/reason"),
    ],
)
def test_wrong_type_within_a_field(tmp_path: Path, field: str, value: Any, code: str, place: str) -> None:
    """Texts and booleans are no numbers, numbers no texts: refused at the entry itself, never converted."""
    found = refused(tmp_path / "p.json", json.dumps(plan_to_dict(PLAN) | {field: value}))
    assert found == {(code, f"p.json#/{field}{place}")}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"a": 1, "a": 2}', "duplicate_key"),
        ('{"provenance": {"a": 1, "a": 2}}', "duplicate_key"),
        ('{"score": NaN}', "not_finite"),
        ('{"score": -Infinity}', "not_finite"),
        ('{"score": 1e999}', "not_finite"),
        (f'{{"score": {10**400}}}', "number_range"),
        (f'{{"score": {"9" * 5000}}}', "number_range"),
        (f'{{"num_gpus": {2**63}}}', "number_range"),
        ("{", "not_json"),
        ("[" * 100_000, "not_json"),
        ("[]", "not_an_object"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, code: str) -> None:
    """Duplicate keys, numbers that are not finite and broken JSON are refused."""
    assert {name for name, _ in refused(tmp_path / "p.json", text)} == {code}


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is an input error."""
    with pytest.raises(InputError, match="cannot_read"):
        load_plan(tmp_path / "none.json")


def test_nothing_half_written(tmp_path: Path) -> None:
    """Content that is not JSON leaves the old file as it was, and no other."""
    path = tmp_path / "plan.json"
    save_plan(PLAN, path)
    with pytest.raises(ValueError, match="JSON"):
        write_json({"score": float("nan")}, path)
    assert load_plan(path) == PLAN
    assert [item.name for item in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    "topology",
    [
        Topology.parse("2x4"),
        Topology.parse("3+1"),
        Topology.parse("4x1"),
        Topology.parse("1x1"),
        Topology.parse("hgx_h100"),
        Topology.parse("gb200_nvl72"),
        Topology.parse("gb200_nvl72:2"),
        Topology.of((2, 1), rank_cost_matrix=[[0, 1, 2], [3, 0, 4], [5, 6, 0]], slots=[1, 2, 3]),
        Topology.of((2,), speed=[1, 2], memory_gb=[10, 20]),
    ],
    ids=lambda topology: str(topology.name),
)
def test_topology_round_trip(tmp_path: Path, topology: Topology) -> None:
    """A topology file gives the same machine again: costs, links, speeds, sizes and hosts."""
    write_json(topology_to_dict(topology), tmp_path / "t.json")
    again = load_topology(tmp_path / "t.json")
    off = ~np.eye(topology.num_gpus, dtype=bool)
    assert again.name == topology.name
    for name in ("node_of_gpu", "hop_cost", "latency_us", "speed", "memory_gb", "slots", "host_of_gpu"):
        assert np.array_equal(getattr(again, name), getattr(topology, name)), name
    if topology.bandwidth_gb_s is not None:
        assert again.bandwidth_gb_s is not None
        assert np.array_equal(again.bandwidth_gb_s[off], topology.bandwidth_gb_s[off])


def test_topology_from_matrix_alone() -> None:
    """A cost matrix alone is one node with those costs."""
    topology = topology_from_dict({"rank_cost_matrix": [[0, 2], [3, 0]]})
    assert topology.gpus_per_node == (2,)
    assert topology.hop_cost.tolist() == [[0, 2], [3, 0]]


def test_topology_from_numbers() -> None:
    """gpus_per_node with num_nodes is an even cluster."""
    assert topology_from_dict({"gpus_per_node": 4, "num_nodes": 2}).gpus_per_node == (4, 4)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({}, "topology_empty"),
        ({"gpus_per_node": 2, "gpu_speed": 10**400}, "number_range"),
        ({"gpus_per_node": 2, "slots": [1, 2**63]}, "number_range"),
        ({"gpus_per_node": 2, "slots": [1, 1e300]}, "vector_values"),
        ({"gpus": 4}, "unknown_field"),
        ({"gpus_per_node": 4, "num_nodes": 0}, "not_integers"),
        ({"gpus_per_node": 4, "num_nodes": 10**12}, "gpus_per_node"),
        ({"gpus_per_node": [2, 2], "num_nodes": 3}, "num_nodes"),
        ({"gpus_per_node": [2], "intra_node": {"latency_us": 1}}, "missing_field"),
        ({"gpus_per_node": [2], "slots": [1.5, 2]}, "vector_values"),
        ({"gpus_per_node": [2], "schema_version": 7}, "schema_version"),
    ],
)
def test_bad_topology(content: dict[str, Any], code: str) -> None:
    """Each bad topology is refused with its code."""
    with pytest.raises(InputError) as error:
        topology_from_dict(content)
    assert code in {item.code for item in error.value.violations}


@pytest.mark.parametrize(
    ("content", "code", "pointer"),
    [
        ({"rank_cost_matrix": [["0", "1"], ["1", "0"]]}, "not_numbers", "/rank_cost_matrix/0/0"),
        ({"rank_cost_matrix": [[0, True], [1, 0]]}, "not_numbers", "/rank_cost_matrix/0/1"),
        ({"rank_cost_matrix": [[0, 1], [None, 0]]}, "not_numbers", "/rank_cost_matrix/1/0"),
        ({"rank_cost_matrix": [0, 1]}, "not_numbers", "/rank_cost_matrix/0"),
        ({"gpus_per_node": [2], "gpu_speed": ["1", "2"]}, "not_numbers", "/gpu_speed/0"),
        ({"gpus_per_node": [2], "gpu_speed": [1, True]}, "not_numbers", "/gpu_speed/1"),
        ({"gpus_per_node": [2], "gpu_speed": True}, "field_type", "/gpu_speed"),
        ({"gpus_per_node": [2], "memory_gb": [80, [80]]}, "not_numbers", "/memory_gb/1"),
        ({"gpus_per_node": [2], "slots": ["4", "4"]}, "not_numbers", "/slots/0"),
        ({"gpus_per_node": [True, 1]}, "not_integers", "/gpus_per_node/0"),
        ({"gpus_per_node": [1, 1.0]}, "not_integers", "/gpus_per_node/1"),
        ({"gpus_per_node": [2], "intra_node": {"bandwidth_gb_s": "9"}}, "field_type", "/intra_node/bandwidth_gb_s"),
        ({"gpus_per_node": [2], "intra_node": {"bandwidth_gb_s": True}}, "field_type", "/intra_node/bandwidth_gb_s"),
    ],
)
def test_wrong_type_in_a_topology(content: dict[str, Any], code: str, pointer: str) -> None:
    """Texts, booleans and null are no numbers: refused at the entry itself, never converted."""
    with pytest.raises(InputError) as error:
        topology_from_dict(content, "#")
    assert {(item.code, item.pointer) for item in error.value.violations} == {(code, f"#{pointer}")}


def test_recorded_topology() -> None:
    """The topology in the provenance is read; a plan may have none."""
    topology = Topology.of((1, 1), speed=[1, 2])
    recorded = recorded_topology(PLAN.replacing(provenance={"topology": topology_to_dict(topology)}))
    assert recorded is not None
    assert recorded.speed.tolist() == [1, 2]
    assert recorded_topology(PLAN) is None


def test_a_recorded_topology_that_contradicts_the_plan_is_refused() -> None:
    """The plan has two nodes of one GPU, the recorded topology one node of two."""
    with pytest.raises(InputError) as error:
        recorded_topology(PLAN.replacing(provenance={"topology": {"gpus_per_node": [2]}}), "p.json#")
    assert {(item.code, item.pointer) for item in error.value.violations} == {
        ("nodes_differ", "p.json#/provenance/topology/gpus_per_node")
    }

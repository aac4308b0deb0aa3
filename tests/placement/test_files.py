"""Plans and topologies as JSON files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement import Plan, Termination, Topology, load_topology
from placement.replay.choices import recorded_topology
from placement.support.json_files import write_json
from placement.topology.file import topology_from_dict, topology_to_dict
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
        Plan.load(path)
    return {(item.code, item.pointer) for item in error.value.violations}


def test_plan_round_trip(tmp_path: Path) -> None:
    """What was saved is loaded, floats to the last bit."""
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN


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
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_unknown_and_missing_fields_together(tmp_path: Path) -> None:
    """Unknown, missing and wrongly typed fields are all named."""
    content = PLAN.as_dict()
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
    found = refused(tmp_path / "p.json", json.dumps(PLAN.as_dict() | {field: value}))
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
    found = refused(tmp_path / "p.json", json.dumps(PLAN.as_dict() | {field: value}))
    assert found == {(code, f"p.json#/{field}{place}")}


BAD_FIGURES = [
    ({"score": float("nan")}, "not_finite", "/score"),
    ({"score": float("inf"), "bound": 0.25}, "not_finite", "/score"),
    ({"bound": float("-inf")}, "not_finite", "/bound"),
    ({"score": 1.0, "bound": 1.00001}, "bound_above_score", "/bound"),
    ({"score": 0.0, "bound": 0.5}, "bound_above_score", "/bound"),
    ({"score": -2.0, "bound": -1.0}, "bound_above_score", "/bound"),
]


@pytest.mark.parametrize(("changes", "code", "pointer"), BAD_FIGURES)
def test_score_and_bound_that_can_not_be_are_not_read(changes: dict[str, float], code: str, pointer: str) -> None:
    """A figure that is not finite, or a bound that the plan itself beats, is refused at its field."""
    with pytest.raises(InputError) as error:
        Plan.from_dict(PLAN.as_dict() | changes, "#")
    assert {(item.code, item.pointer) for item in error.value.violations} == {(code, f"#{pointer}")}
    assert all(item.remedy for item in error.value.violations)


@pytest.mark.parametrize(("changes", "code", "pointer"), BAD_FIGURES)
def test_score_and_bound_that_can_not_be_are_not_saved(
    changes: dict[str, float], code: str, pointer: str, tmp_path: Path
) -> None:
    """What could not be read again is refused before a file is made."""
    with pytest.raises(InputError) as error:
        PLAN.replacing(**changes).save(tmp_path / "plan.json")
    assert {(item.code, item.pointer) for item in error.value.violations} == {(code, pointer)}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("score", "bound"), [(1.0, 1.0), (1.0, 1 + 1e-7), (0.0, 1e-15), (-1.0, -2.0), (None, 5.0), (5.0, None)]
)
def test_a_bound_may_exceed_the_score_by_rounding(tmp_path: Path, score: float | None, bound: float | None) -> None:
    """A bound is a sum of many numbers; alone, either of the two may be anything finite."""
    plan = PLAN.replacing(score=score, bound=bound)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


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
        Plan.load(tmp_path / "none.json")


def test_nothing_half_written(tmp_path: Path) -> None:
    """Content that is not JSON leaves the old file as it was, and no other."""
    path = tmp_path / "plan.json"
    PLAN.save(path)
    with pytest.raises(ValueError, match="JSON"):
        write_json({"score": float("nan")}, path)
    assert Plan.load(path) == PLAN
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


def custom(**changes: Any) -> Topology:
    """Two nodes of two GPUs, with arrays of one's own."""
    return replace(Topology.parse("2x2"), name="custom", **changes)


OWN = np.array([[0, 1, 2, 3], [4, 0, 5, 6], [7, 8, 0, 9], [10, 11, 12, 0.1]]) - np.diag([0, 0, 0, 0.1])


@pytest.mark.parametrize(
    ("topology", "fields"),
    [
        (custom(), {"intra_node", "inter_node"}),
        (custom(hop_cost=OWN), {"rank_cost_matrix", "bandwidth_gb_s", "latency_us"}),
        (custom(bandwidth_gb_s=OWN + 1), {"rank_cost_matrix", "bandwidth_gb_s", "latency_us"}),
        (custom(latency_us=OWN), {"rank_cost_matrix", "bandwidth_gb_s", "latency_us"}),
        (custom(latency_us=None), {"rank_cost_matrix", "bandwidth_gb_s"}),
        (custom(bandwidth_gb_s=None), {"rank_cost_matrix", "latency_us"}),
        (custom(hop_cost=OWN, bandwidth_gb_s=None, latency_us=None), {"rank_cost_matrix"}),
        (custom(host_of_gpu=np.array([0, 1, 1, 1])), {"intra_node", "inter_node", "host_of_gpu"}),
        (custom(host_of_gpu=np.array([5, 5, 5, 5])), {"intra_node", "inter_node", "host_of_gpu"}),
        (custom(host_of_gpu=np.arange(4)), {"intra_node", "inter_node", "gpus_per_host"}),
    ],
)
def test_a_topology_of_ones_own_arrays_round_trip(tmp_path: Path, topology: Topology, fields: set[str]) -> None:
    """Where two kinds of links don't give the same figures, the matrices are written in full: nothing is lost."""
    content = topology_to_dict(topology)
    assert set(content) - {"schema_version", "name", "gpus_per_node", "gpu_speed"} == fields
    write_json(content, tmp_path / "t.json")
    again = load_topology(tmp_path / "t.json")
    for name in ("node_of_gpu", "hop_cost", "bandwidth_gb_s", "latency_us", "speed", "host_of_gpu"):
        assert np.array_equal(getattr(again, name), getattr(topology, name)), name


def test_topology_from_matrix_alone() -> None:
    """A cost matrix alone is one node with those costs."""
    topology = topology_from_dict({"rank_cost_matrix": [[0, 2], [3, 0]]})
    assert topology.gpus_per_node == (2,)
    assert topology.hop_cost.tolist() == [[0, 2], [3, 0]]


def test_topology_from_numbers() -> None:
    """gpus_per_node with num_nodes is an even cluster."""
    assert topology_from_dict({"gpus_per_node": 4, "num_nodes": 2}).gpus_per_node == (4, 4)


COSTS = [[0, 1, 2, 3], [1, 0, 2, 3], [2, 2, 0, 1], [3, 3, 1, 0]]
LINK = {"bandwidth_gb_s": 100}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"gpus_per_node": [1, 3]}, (1, 3)),
        ({"gpus_per_node": 2, "num_nodes": 2}, (2, 2)),
        ({"gpus_per_node": 4}, (4,)),
        ({"num_nodes": 1}, (4,)),
    ],
)
def test_topology_from_matrix_and_nodes(sizes: dict[str, Any], expected: tuple[int, ...]) -> None:
    """The matrix says what hops cost, the sizes where the nodes end."""
    topology = topology_from_dict({"rank_cost_matrix": COSTS} | sizes)
    assert topology.gpus_per_node == expected
    assert topology.hop_cost.tolist() == COSTS


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"rank_cost_matrix": COSTS, "num_nodes": 2}, {("num_nodes", "/num_nodes")}),
        ({"rank_cost_matrix": COSTS, "intra_node": LINK}, {("links_and_costs", "/intra_node")}),
        (
            {"rank_cost_matrix": COSTS, "gpus_per_node": 2, "num_nodes": 2, "inter_node": LINK},
            {("links_and_costs", "/inter_node")},
        ),
        (
            {"rank_cost_matrix": COSTS, "num_nodes": 4, "intra_node": LINK, "inter_node": LINK},
            {("num_nodes", "/num_nodes"), ("links_and_costs", "/intra_node"), ("links_and_costs", "/inter_node")},
        ),
        ({"gpus_per_node": 4, "num_nodes": 0}, {("num_nodes", "/num_nodes")}),
        ({"gpus_per_node": 4, "num_nodes": -1}, {("num_nodes", "/num_nodes")}),
        ({"gpus_per_node": [2, 2], "num_nodes": 0}, {("num_nodes", "/num_nodes")}),
        ({"gpus_per_node": 4, "num_nodes": 10**12}, {("num_nodes", "/num_nodes")}),
        ({"rank_cost_matrix": COSTS, "num_nodes": -1}, {("num_nodes", "/num_nodes")}),
        ({"rank_cost_matrix": []}, {("matrix_shape", "/rank_cost_matrix")}),
        ({"gpus_per_node": [4], "bandwidth_gb_s": COSTS}, {("matrices_without_costs", "/bandwidth_gb_s")}),
        ({"gpus_per_node": [4], "latency_us": COSTS}, {("matrices_without_costs", "/latency_us")}),
        ({"gpus_per_node": [4], "gpus_per_host": 2, "host_of_gpu": [0, 0, 1, 1]}, {("hosts_twice", "/host_of_gpu")}),
        ({"gpus_per_node": [4], "host_of_gpu": [0, 0, 1]}, {("vector_shape", "/host_of_gpu")}),
        ({"gpus_per_node": [4], "host_of_gpu": [0, 0, 1, "1"]}, {("not_integers", "/host_of_gpu/3")}),
        ({"rank_cost_matrix": COSTS, "bandwidth_gb_s": [[1, 2], [3]]}, {("array_type", "/bandwidth_gb_s")}),
        ({"rank_cost_matrix": COSTS, "latency_us": [[1, 2], [3, 4]]}, {("matrix_shape", "/latency_us")}),
        ({"rank_cost_matrix": COSTS, "latency_us": [["1"]]}, {("not_numbers", "/latency_us/0/0")}),
    ],
)
def test_fields_that_have_no_meaning_together(content: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    """No field is left out of account: each one that can't count is refused at its own place, with a remedy."""
    with pytest.raises(InputError) as error:
        topology_from_dict(content, "#")
    assert {(item.code, item.pointer) for item in error.value.violations} == {
        (code, f"#{pointer}") for code, pointer in expected
    }
    assert all(item.remedy for item in error.value.violations)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({}, "topology_empty"),
        ({"gpus_per_node": 2, "gpu_speed": 10**400}, "number_range"),
        ({"gpus_per_node": 2, "slots": [1, 2**63]}, "number_range"),
        ({"gpus_per_node": 2, "slots": [1, 1e300]}, "vector_values"),
        ({"gpus": 4}, "unknown_field"),
        ({"gpus_per_node": 4, "num_nodes": 2000}, "gpus_per_node"),
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


@pytest.mark.parametrize("content", ['{"physical_to_logical_map": [[0, 1]]}', "[[0, 1]]", "layer,gpu", "\x93NUMPY"])
def test_a_file_of_an_engine_is_not_loaded_as_a_plan(content: str, tmp_path: Path) -> None:
    """The error names what reads it; a plan file with a fault, and a missing one, are told without that."""
    path = tmp_path / "engine.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"placement\.exports\.load_placement"):
        Plan.load(path)
    ours = Plan.of([[0, 1]], layer_ids=[0], num_experts=2, gpus_per_node=(2,)).as_dict()
    del ours["layer_ids"]
    path.write_text(json.dumps(ours), encoding="utf-8")
    for wrong in (path, tmp_path / "none.json"):
        with pytest.raises(InputError) as error:
            Plan.load(wrong)
        assert "load_placement" not in str(error.value)

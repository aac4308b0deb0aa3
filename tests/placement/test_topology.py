"""Topologies: shorthands, presets, costs, entry GPUs, and every violation at once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import PRESETS, Link, Topology
from traces import InputError


def pointers(error: pytest.ExceptionInfo[InputError]) -> set[tuple[str, str]]:
    """Code and pointer of each violation."""
    return {(item.code, item.pointer) for item in error.value.violations}


def test_even_shorthand() -> None:
    """4x8 is four nodes of eight GPUs, hops between nodes cost 1."""
    topology = Topology.parse(" 4X8 ")
    assert topology.gpus_per_node == (8, 8, 8, 8)
    assert (topology.num_gpus, topology.num_nodes, topology.name) == (32, 4, "4x8")
    assert topology.hop_cost[0, 8] == 1
    assert topology.hop_cost[0, 1] == pytest.approx(50 / 450)
    assert not topology.hop_cost.diagonal().any()


def test_uneven_shorthand() -> None:
    """8+8+4 has nodes of different sizes."""
    topology = Topology.parse("8+8+4")
    assert topology.gpus_per_node == (8, 8, 4)
    assert topology.node_of_gpu.tolist() == [0] * 8 + [1] * 8 + [2] * 4


def test_flat_topology_counts_messages() -> None:
    """One node, or one GPU per node: every hop costs 1."""
    for text in ("1x4", "4x1"):
        assert np.array_equal(Topology.parse(text).hop_cost, 1 - np.eye(4))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_costs_do_not_depend_on_the_number_of_nodes(name: str) -> None:
    """A link inside a node costs the same in one node as in two."""
    one, two = Topology.parse(name), Topology.parse(f"{name.replace('_', '-')}:2")
    size = PRESETS[name].gpus_per_node
    assert one.gpus_per_node == (size,)
    assert two.gpus_per_node == (size, size)
    assert np.allclose(one.hop_cost, two.hop_cost[:size, :size])
    assert two.hop_cost.max() == 1
    assert one.memory_gb is not None
    assert (one.memory_gb == PRESETS[name].memory_gb).all()
    assert np.bincount(one.host_of_gpu).max() == PRESETS[name].gpus_per_host


@pytest.mark.parametrize(
    "text",
    [
        *("", "8", "0x4", "4x0", "9999x9999", "8+0", "x", f"{'1' * 5000}x1"),
        *("hgx_h100:0", "hgx_h100:x", "hgx_h100:-1", "hgx_h100:99999", f"hgx_h100:{'1' * 5000}"),
    ],
)
def test_unreadable_shorthand(text: str) -> None:
    """Other texts are refused with a remedy."""
    with pytest.raises(InputError) as error:
        Topology.parse(text)
    assert all(item.remedy for item in error.value.violations)


def test_all_violations_of_links_at_once() -> None:
    """Bad bandwidths and latencies are listed together."""
    with pytest.raises(InputError) as error:
        Topology.of(
            (2, 2),
            intra=Link(bandwidth_gb_s=0, latency_us=-1),
            inter=Link(bandwidth_gb_s=float("nan"), latency_us=float("inf")),
        )
    assert pointers(error) == {
        ("bandwidth_range", "/intra_node/bandwidth_gb_s"),
        ("latency_range", "/intra_node/latency_us"),
        ("bandwidth_range", "/inter_node/bandwidth_gb_s"),
        ("latency_range", "/inter_node/latency_us"),
    }


def test_all_violations_of_vectors_and_costs_at_once() -> None:
    """A bad matrix, speeds, memory and slots are listed together."""
    with pytest.raises(InputError) as error:
        Topology.of((2,), rank_cost_matrix=[[1, 1], [1, 0]], speed=[1, 0], memory_gb=[1, 2, 3], slots=[0, 1])
    assert pointers(error) == {
        ("matrix_diagonal", "/rank_cost_matrix"),
        ("vector_values", "/gpu_speed"),
        ("vector_shape", "/memory_gb"),
        ("vector_values", "/slots"),
    }


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"rank_cost_matrix": [[0, 1]]}, "/rank_cost_matrix"),
        ({"rank_cost_matrix": [[0, "x"], [1, 0]]}, "/rank_cost_matrix"),
        ({"rank_cost_matrix": [[0, -1], [1, 0]]}, "/rank_cost_matrix"),
        ({"rank_cost_matrix": [[0, np.inf], [1, 0]]}, "/rank_cost_matrix"),
        ({"slots": [1.5, 2]}, "/slots"),
        ({"gpus_per_host": 0}, "/gpus_per_host"),
        ({"gpus_per_host": 4}, "/gpus_per_host"),
        ({"rank_cost_matrix": [[0, 1e308], [1, 0]]}, "/rank_cost_matrix"),
        ({"rank_cost_matrix": [[0, 2e6], [1, 0]]}, "/rank_cost_matrix"),
        ({"rank_cost_matrix": [[0, 1e-320], [1, 0]]}, "/rank_cost_matrix"),
        ({"speed": 1e308}, "/gpu_speed"),
        ({"speed": [1, 2e6]}, "/gpu_speed"),
        ({"speed": [1, 1e-7]}, "/gpu_speed"),
        ({"memory_gb": 1e308}, "/memory_gb"),
        ({"intra": Link(bandwidth_gb_s=1e-320, latency_us=0)}, "/intra_node/bandwidth_gb_s"),
        ({"intra": Link(bandwidth_gb_s=20_000, latency_us=0)}, "/intra_node/bandwidth_gb_s"),
        ({"inter": Link(bandwidth_gb_s=1e308, latency_us=0)}, "/inter_node/bandwidth_gb_s"),
        ({"inter": Link(bandwidth_gb_s=50, latency_us=1e308)}, "/inter_node/latency_us"),
        ({"speed": [1, np.nan]}, "/gpu_speed"),
    ],
)
def test_bad_option(options: dict[str, Any], pointer: str) -> None:
    """Each bad option is refused at its place, never rounded."""
    with pytest.raises(InputError) as error:
        Topology.of((2,), **options)
    assert {item.pointer for item in error.value.violations} == {pointer}


def test_figures_at_the_ends_of_their_ranges_are_kept() -> None:
    """The slowest link beside the fastest one, and costs and speeds a factor of 1e12 apart."""
    fast, slow = Link(bandwidth_gb_s=10_000, latency_us=0), Link(bandwidth_gb_s=0.01, latency_us=1e6)
    assert Topology.of((2, 2), intra=fast, inter=slow).hop_cost[0].tolist() == [0, 1e-6, 1, 1]
    topology = Topology.of((2,), rank_cost_matrix=[[0, 1e6], [1e-6, 0]], speed=[1e-6, 1e6])
    assert topology.hop_cost.max() / topology.hop_cost[1, 0] == pytest.approx(1e12)
    assert np.isfinite(topology.fair_share).all()
    assert topology.fair_share.min() > 0


def test_hosts_fill_nodes() -> None:
    """Hosts of 4 on nodes of 8 and 4 GPUs; hosts of 3 would have GPUs of two nodes."""
    assert Topology.of((8, 4), gpus_per_host=4).host_of_gpu.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(InputError) as error:
        Topology.of((8, 4), gpus_per_host=3)
    assert pointers(error) == {("gpus_per_host", "/gpus_per_host")}


def test_rank_cost_matrix_replaces_links() -> None:
    """Costs may be arbitrary and asymmetric; then no bandwidth is known."""
    topology = Topology.of((1, 1), rank_cost_matrix=[[0, 3], [2, 0]])
    assert topology.hop_cost.tolist() == [[0, 3], [2, 0]]
    assert topology.bandwidth_gb_s is None


def test_fair_share_follows_speed() -> None:
    """A GPU that is twice as fast gets twice the load."""
    assert Topology.of((3,), speed=[1, 1, 2]).fair_share.tolist() == [0.25, 0.25, 0.5]


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_entry_gpu(sizes: list[int]) -> None:
    """Messages enter a node at the GPU with the sender's index there, wrapped around; the sender in its own node."""
    topology = Topology.of(tuple(sizes))
    for gpu in range(topology.num_gpus):
        node = int(topology.node_of_gpu[gpu])
        local = gpu - sum(sizes[:node])
        for other, size in enumerate(sizes):
            assert topology.entry_gpu[gpu, other] == sum(sizes[:other]) + local % size
        assert topology.entry_gpu[gpu, node] == gpu


def test_arrays_are_read_only() -> None:
    """A topology can't be changed by accident."""
    topology = Topology.parse("2x2")
    with pytest.raises(ValueError, match="read-only"):
        topology.hop_cost[0, 1] = 5


ARRAYS = {
    "node_of_gpu": np.array([0, 0]),
    "hop_cost": np.array([[0.0, 1], [1, 0]]),
    "bandwidth_gb_s": np.array([[1.0, 2], [3, 4]]),
    "latency_us": np.array([[0.0, 5], [6, 0]]),
    "speed": np.array([1.0, 2]),
    "memory_gb": np.array([80.0, 80]),
    "slots": np.array([3, 4]),
    "host_of_gpu": np.array([0, 0]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_copies(name: str) -> None:
    """The topology's array can't be written; the caller's can, without any effect on the topology."""
    given: dict[str, Any] = {key: array.copy() for key, array in ARRAYS.items()}
    topology = Topology(name="own", **given)
    assert not getattr(topology, name).flags.writeable
    given[name][:] = 9
    assert np.array_equal(getattr(topology, name), ARRAYS[name])


@pytest.mark.parametrize(
    ("name", "value", "code", "pointer"),
    [
        ("hop_cost", [[0, 1], [1]], "array_type", "/rank_cost_matrix"),
        ("hop_cost", np.array([["0", "1"], ["1", "0"]]), "array_type", "/rank_cost_matrix"),
        ("speed", np.array([True, True]), "array_type", "/gpu_speed"),
        ("slots", np.array([1.5, 2]), "array_type", "/slots"),
        ("node_of_gpu", np.array([[0], [0]]), "array_type", "/node_of_gpu"),
        ("speed", np.array(1.0), "vector_shape", "/gpu_speed"),
        ("host_of_gpu", np.array([0]), "vector_shape", "/host_of_gpu"),
        ("host_of_gpu", np.array([0, -1]), "vector_values", "/host_of_gpu"),
        ("bandwidth_gb_s", np.array([[1, 0.0], [1, 1]]), "matrix_range", "/bandwidth_gb_s"),
        ("bandwidth_gb_s", np.array([[1, 1], [20_000.0, 1]]), "matrix_range", "/bandwidth_gb_s"),
        ("latency_us", np.array([[0, 2e6], [1, 0]]), "matrix_range", "/latency_us"),
    ],
)
def test_bad_array(name: str, value: Any, code: str, pointer: str) -> None:
    """Arrays of a wrong type, shape or range are refused, never rounded."""
    with pytest.raises(InputError) as error:
        Topology(name="own", **(ARRAYS | {name: value}))
    assert pointers(error) == {(code, pointer)}

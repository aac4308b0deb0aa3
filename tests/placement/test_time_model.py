"""Machines, kernels and exchanges: what they are read from, and what their times obey."""

from __future__ import annotations

from dataclasses import replace
from math import log
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.time import (
    GPUS,
    Curve,
    Exchange,
    ExpertKernel,
    FittedError,
    Links,
    Machine,
    PassLoad,
    TimeModel,
    kernel_for,
)
from placement.time.bottlenecks import Bottleneck, bottleneck_at, forwarded_copies
from placement.time.calibration.exchanges import base_copies
from placement.time.catalogue import Coefficients, coefficients_of, from_json, to_json
from placement.time.exchange import Way
from placement.time.experts import joined, roofline
from placement.time.fair import relative_speed
from placement.time.features import FEATURES, features, units
from traces import InputError
from traces.model.presets import load_model
from traces.model.shape import ModelShape

ERROR = FittedError(median=0.02, p90=0.08, left_out="pairs", rows=10)
SHAPE = ModelShape(hidden_size=512, expert_input=512, intermediate_size=128, num_experts=16, top_k=4)


def curve(nodes: int, launch: float, per_gb: float, way: Way = "dispatch", copies: float = 2.0) -> Curve:
    """Return a straight line."""
    per = MappingProxyType({"launch": launch, "gb": per_gb})
    return Curve(way=way, nodes=nodes, gpus=8 * nodes, ms_per=per, base_copies=copies, error=ERROR)


def test_machine_is_read_with_its_classes() -> None:
    """Classes of devices follow each other, nodes are counted on."""
    machine = Machine.parse("h200:2x4+h20:1x8")
    assert (machine.num_gpus, machine.num_nodes, machine.kinds) == (16, 3, ("h200", "h20"))
    assert machine.kind_of_gpu.tolist() == [0] * 8 + [1] * 8
    assert machine.topology().gpus_per_node == (4, 4, 8)


def test_hops_cost_what_the_links_of_both_ranks_take() -> None:
    """Only pairs with the slow uplink's node are dear; the fastest pair of two nodes costs 1, and alike ones too."""
    cost = Machine.parse("h200:1x2@10+h200:2x2").topology().hop_cost  # two ranks share 10 GB/s
    assert cost[0, 1] == pytest.approx(50 / 450)
    assert (cost[0, 2:] == 10).all()
    assert (cost[2:, 0] == 10).all()
    assert (cost[2:4, 4:] == 1).all()
    assert Machine.parse("h200:1x2").topology().hop_cost.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("phase", "tokens", "least", "most"),
    [("prefill", 4096, 0.12, 0.4), ("decode", 8, 0.1, 1.2), ("decode", 512, 0.1, 0.4)],
)
def test_speed_of_classes_follows_what_limits_them(
    phase: Literal["prefill", "decode"], tokens: int, least: float, most: float
) -> None:
    """H20 has a seventh of H100's matrix units, and more memory bandwidth."""
    time = TimeModel.of("h100:1x4+h20:1x4", "qwen3-30b-a3b", phase=phase, tokens_per_gpu=tokens)
    speed = time.topology.speed
    assert speed.max() == 1
    assert least <= speed[4] / speed[0] <= most
    assert "h20" in time.topology.notes[0]


@given(st.integers(1, 4096), st.floats(0.1, 10), st.floats(0.1, 10))
@settings(max_examples=20)
def test_classes_finish_together_where_tokens_count(tokens: int, compute: float, memory: float) -> None:
    """Speeds lie between those of memory and matrix units, and where computing alone counts, are those of these."""

    def kernel(tflop: float, gb: float) -> ExpertKernel:
        per = {"pairs": tflop, "weights": gb}
        one = roofline(GPUS["h200"], "bfloat16", "decode")
        return replace(one, ms_per=MappingProxyType(per), beside_ms_per=MappingProxyType({}))

    def speed(gb: float) -> float:
        fast, slow = kernel(1.0, gb), kernel(compute, gb * memory)
        found = relative_speed([fast, slow], np.array([2, 2]), tokens, SHAPE)
        return float(found[1] / found[0])

    assert min(1 / compute, 1 / memory) * 0.99 <= speed(1.0) <= max(1 / compute, 1 / memory) * 1.01
    assert speed(0.0) == pytest.approx(1 / compute, rel=0.05 + 8 / tokens)


def test_speed_of_classes_needs_a_model() -> None:
    """Without one it is that of their memory, and a note says so; classes that are alike need none."""
    topology = Machine.parse("h100:1x4+h20:1x4").topology()
    assert topology.speed[0] / topology.speed[4] == pytest.approx(3350 / 4000)
    assert "name the model" in topology.notes[0]
    assert Machine.parse("h100:2x4").topology().notes == ()


@pytest.mark.parametrize("text", ["h200", "h200:", "h2000:2x8", "h200:axb"])
def test_machine_of_another_form_is_refused(text: str) -> None:
    """A machine names a known GPU and sizes."""
    with pytest.raises(InputError):
        Machine.parse(text)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=9), st.integers(0, 400))
@settings(max_examples=50)
def test_features_are_sums_over_experts(counts: list[int], rows: int) -> None:
    """Each feature is what its name says, against a plain implementation."""
    unit = units(SHAPE, "bfloat16")
    found = dict(zip(FEATURES, features(np.array(counts), rows, unit).tolist(), strict=True))
    flop, vector = 6 * 512 * 128 / 1e12, 512 / 1e9
    used = sum(count > 0 for count in counts)
    assert (found["launch"], found["slots"], found["active"]) == (1, len(counts), used)
    assert found["weights"] == pytest.approx(used * 3 * 512 * 128 * 2 / 1e9)
    assert found["pairs"] == pytest.approx(sum(counts) * flop)
    assert found["tile64"] == pytest.approx(sum(-(-count // 64) * 64 for count in counts) * flop)
    assert found["first256"] == pytest.approx(min(sum(counts), 256) * flop)
    assert (found["row_gb"], found["copy_gb"]) == (pytest.approx(rows * vector), pytest.approx(rows * 4 * vector))
    assert found["pair_count"] == pytest.approx(sum(counts) / 1e6)


def test_packed_rows_fill_tiles_together() -> None:
    """Rows that lie one behind the other take the tiles of their sum."""
    found = features(np.array([1] * 64), 8, units(SHAPE, "bfloat16"), packed=True)
    assert found[FEATURES.index("tile64")] == pytest.approx(64 * 6 * 512 * 128 / 1e12)


@given(st.floats(0, 10), st.floats(1e-6, 10))
@settings(max_examples=30)
def test_soft_maximum_is_near_the_maximum(floor: float, line: float) -> None:
    """Never below the larger, never more than 6 % above it."""
    assert max(floor, line) * 0.999 <= joined(floor, line) <= 1.06 * max(floor, line)


@pytest.mark.parametrize("gpu", ["h100", "h200", "b200", "gb200"])
def test_more_work_is_never_faster(gpu: str) -> None:
    """A shipped kernel takes no less time when an expert gets more tokens."""
    model = load_model("deepseek-v3")
    for phase in ("prefill", "decode"):
        kernel = kernel_for(GPUS[gpu], phase, "fp8_block")
        counts = np.array([[0, 5, 100, 2000], [1, 5, 100, 2000], [1, 5, 300, 2000], [1, 5, 300, 9000]])
        times = kernel.rank_ms(counts, counts.sum(axis=1), model.shape)
        assert kernel.measured
        assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("gpu", ["h100", "h200", "b200", "gb200"])
def test_shipped_kernels_were_held_to_account(gpu: str) -> None:
    """Prefill and decode kernels: median at most 5 %, nine of ten within 15 %, on pairs that no fit saw."""
    found = coefficients_of(gpu)
    assert found is not None
    wide = [kernel for kernel in found.kernels if kernel.name == "sglang_deepep"]
    assert {kernel.phase for kernel in wide} == {"prefill", "decode"}
    assert all("distribution" in kernel.error.left_out for kernel in wide)
    assert all(kernel.error.median <= 0.05 and kernel.error.p90 <= 0.15 for kernel in wide)


def test_kernels_of_another_type_are_not_taken() -> None:
    """Without measurements of the number format or the GPU, a roofline stands in and says so."""
    assert not kernel_for(GPUS["h20"], "decode", "fp8_block").measured
    assert not kernel_for(GPUS["h200"], "decode", "int8").measured
    assert kernel_for(GPUS["h800"], "decode", "fp8_block").gpu == "h100"


def test_own_measurements_go_first() -> None:
    """Coefficients of one's own are taken before those that ship."""
    mine = ExpertKernel(gpu="h200", name="mine", phase="any", dtype="fp8_block", error=ERROR, source="my.csv")
    own = Coefficients(gpu="h200", source=MappingProxyType({}), kernels=(mine,), exchanges=())
    assert kernel_for(GPUS["h200"], "decode", "fp8_block", own=own) == mine


def test_coefficients_survive_their_file() -> None:
    """What is written is what is read."""
    kernel = ExpertKernel(
        gpu="h200",
        name="k",
        phase="any",
        dtype="fp8",
        floor_ms=0.1,
        ms_per=MappingProxyType({"launch": 0.5}),
        tactics=MappingProxyType({"512x128x4": 1.3}),
        error=ERROR,
        source="t",
    )
    exchange = Exchange(backend="b", curves=(curve(1, 0.1, 2.0),), source="t", bottlenecks=held_up(1, 2).bottlenecks)
    found = Coefficients(gpu="h200", source=MappingProxyType({"a": "b"}), kernels=(kernel,), exchanges=(exchange,))
    assert from_json(to_json(found), "here") == found
    with pytest.raises(InputError, match="no coefficient file"):
        from_json('{"gpu": 1}', "here")


def test_tuned_shapes_have_their_factor() -> None:
    """A factor holds for its shape and number of slots only."""
    per, tactics = MappingProxyType({"launch": 1.0}), MappingProxyType({"512x128x4": 1.3})
    kernel = ExpertKernel(
        gpu="h200", name="k", phase="any", dtype="bfloat16", ms_per=per, tactics=tactics, error=ERROR, source="t"
    )
    four, five = np.ones(4, np.int64), np.ones(5, np.int64)
    assert kernel.rank_ms(four, 1, SHAPE) == pytest.approx(1.3)
    assert kernel.rank_ms(five, 1, SHAPE) == pytest.approx(1.0)


def test_skew_scales_what_is_moved_and_not_the_start() -> None:
    """T = t0 + a (T_base - t0) for a line: the busiest rank's share stretches the volume."""
    exchange = Exchange(backend="deepep_normal", curves=(curve(1, 0.1, 3.0),), source="t")
    base, skewed = exchange.ms("dispatch", 1, [1000.0, 2500.0], SHAPE)
    assert skewed == pytest.approx(0.1 + 2.5 * (base - 0.1))


def test_nodes_between_measured_ones_are_interpolated() -> None:
    """On log-log axes, at equal tokens; a measured number is itself."""
    curves = (curve(2, 0.0, 100.0), curve(8, 0.0, 400.0))
    exchange = Exchange(backend="deepep_normal", curves=curves, source="t")
    two, four, eight = (exchange.ms("dispatch", nodes, [1e4], SHAPE)[0] for nodes in (2, 4, 8))
    assert eight == pytest.approx(4 * two)
    assert four == pytest.approx(2 * two)


def test_copies_of_even_routing() -> None:
    """The tables' distinct destinations, against draws; one per expert without merging."""
    rng = np.random.default_rng(0)
    chosen = rng.random((4000, 64)).argsort(axis=1)[:, :6] // 8
    distinct = np.mean([len(set(row) - {0}) for row in chosen.tolist()])
    assert base_copies("deepep_normal", 6, 64, 1, 8) == pytest.approx(distinct, rel=0.03)
    assert base_copies("deepep_low_latency", 6, 64, 4, 32) == 6 * 3 / 4


def test_missing_tier_falls_back_to_the_links() -> None:
    """B200 was measured within one node: between nodes the data sheet stands in, with a note."""
    time = TimeModel.of("b200:2x8", "deepseek-v3", phase="prefill")
    assert time.inside.measured
    assert not time.across.measured
    assert any("between nodes" in note for note in time.notes)


def test_roofline_computes_while_it_reads() -> None:
    """Tokens of experts that are read anyway cost next to nothing, until computing them takes longer than reading."""
    kernel, shape = roofline(GPUS["ascend-910b"], "bfloat16", "decode"), load_model("deepseek-v2-lite").shape
    few, more, many = (float(kernel.rank_ms(np.full(8, n), 8 * n, shape)) for n in (16, 64, 1024))
    assert few <= more < 1.05 * few  # their vectors are moved
    assert many > 4 * few


def test_roofline_reads_and_computes() -> None:
    """One token costs the reading of an expert or a tile of computing, many cost their computing."""
    kernel = roofline(GPUS["h20"], "fp8_block", "decode")
    shape = load_model("deepseek-v3").shape
    one, many = kernel.rank_ms(np.array([[1], [64_000]]), np.array([1, 64_000]), shape)
    assert one == pytest.approx(0.02 + 64 * 6 * 7168 * 2048 / (0.4 * 296e9), rel=0.01)
    assert shape.expert_gb / (0.7 * 4.0) < one - 0.02
    assert many / one > 100
    assert log(kernel.error.p90) > log(0.15)


@pytest.mark.parametrize("field", [{"tokens_per_gpu": 0}, {"rest_ms": -1.0}, {"phase": "both"}])
def test_values_out_of_range_are_refused(field: dict[str, object]) -> None:
    """Each names its place."""
    asked: dict[str, object] = {"phase": "decode"} | field
    with pytest.raises(InputError):
        TimeModel.of("h200:1x8", "olmoe", **asked)  # type: ignore[arg-type]


def test_busiest_link_holds_up_an_exchange() -> None:
    """Uplinks are shared by the ranks of a node, both directions apart; a slow one holds everyone up."""
    links = Links(
        node_of_gpu=np.array([0, 0, 1, 1]),
        rank_gb_s=np.full(4, 10.0),
        uplink_gb_s=np.full(2, 5.0),
        launch_ms=1.0,
    )
    inside = np.zeros((4, 4))
    inside[0, 1] = 0.02
    assert links.ms(inside) == pytest.approx(1 + 2)
    both = np.zeros((4, 4))
    both[0, 2] = both[1, 3] = both[3, 0] = 0.01  # two leave node 0 over its uplink, one comes back beside them
    assert links.ms(both) == pytest.approx(1 + 4)
    slower = replace(links, uplink_gb_s=np.array([5.0, 1.25]))
    assert slower.ms(np.stack([inside, both])) == pytest.approx([3, 1 + 16])
    assert links.ms(np.eye(4)) == 1  # what stays is not moved


def held_up(sms: float, link: float) -> Exchange:
    """Return an exchange of a line on 2 and 8 nodes whose SMs and links take so many milliseconds per gigabyte."""
    limits = tuple(Bottleneck(way="dispatch", nodes=n, sm_ms_per_gb=20 * sms, link_ms_per_gb=link) for n in (2, 8))
    curves = tuple(replace(curve(n, 0.1, 3.0), sms=20) for n in (2, 8))
    return Exchange(backend="deepep_normal", curves=curves, source="t", bottlenecks=limits)


def test_the_slower_of_sms_and_links_holds_up() -> None:
    """Where links bind, fewer copies within a node save nothing, and the other way round; even copies are the curve."""
    for sms, link, which in ((1.0, 500.0, "across"), (500.0, 1.0, "forwarded")):
        exchange = held_up(sms, link)
        each = forwarded_copies(8, 256, 2, 16)
        even = {"across": 2000.0, "forwarded": 1000 * each}  # curve() has two copies per token

        def ms(copies: dict[str, float], exchange: Exchange = exchange) -> float:
            return float(exchange.ms("dispatch", 2, copies["across"], SHAPE, forwarded=copies["forwarded"]))

        base = exchange.curves[0].ms(2000 * SHAPE.expert_input / 1e9 * 2.0)
        assert ms(even) == pytest.approx(base)
        other = "forwarded" if which == "across" else "across"
        assert ms(even | {other: even[other] / 2}) == pytest.approx(base)
        assert ms(even | {which: even[which] / 2}) == pytest.approx(0.1 + (base - 0.1) / 2)


def test_bottlenecks_on_other_numbers_of_nodes() -> None:
    """Rates of SMs and links are interpolated between; beyond, SMs stay, and links have no less contention."""
    known = [
        Bottleneck(way="dispatch", nodes=2, sm_ms_per_gb=100, link_ms_per_gb=0),
        Bottleneck(way="dispatch", nodes=4, sm_ms_per_gb=200, link_ms_per_gb=20),
        Bottleneck(way="dispatch", nodes=8, sm_ms_per_gb=200, link_ms_per_gb=40),
    ]
    found = {nodes: bottleneck_at(nodes, known) for nodes in (1, 2, 4, 8, 16)}
    assert [found[nodes].link_ms_per_gb for nodes in (1, 2, 4, 16)] == pytest.approx([20, 20, 20, 80])
    assert (found[1].sm_ms_per_gb, found[16].sm_ms_per_gb) == pytest.approx((100, 200))


def moved(across: list[list[int]], inside: list[list[int]]) -> PassLoad:
    """Return one layer's pass that moves so many copies, by rank: sent, received."""
    ranks = len(across)
    return PassLoad(
        counts=np.zeros((1, ranks, 1), np.int64),
        rows=np.zeros((1, ranks), np.int64),
        inside=np.array([inside]),
        across=np.array([across]),
        tokens=1,
    )


def test_ranks_of_a_node_share_an_uplink() -> None:
    """The busier direction of the busiest uplink, where it is slower than every rank's own links; in GB/s."""
    load = moved([[90_000, 10_000], [30_000, 10_000], [10_000, 60_000], [10_000, 60_000]], [[0, 0]] * 4)
    fields: dict[str, Any] = {"phase": "decode", "backend": "links", "rest_ms": 0.0}
    alone = TimeModel.of("h200:2x2", "deepseek-v3", **fields).exchange_ms(load, "combine")
    shared = TimeModel.of("h200:2x2@5", "deepseek-v3", **fields)
    copy_gb = 2 * 7168 / 1e9
    assert shared.exchange_ms(load, "combine") == pytest.approx(0.06 + 1e3 * 120_000 * copy_gb / 5, rel=1e-6)
    assert TimeModel.of("h200:2x2@500", "deepseek-v3", **fields).exchange_ms(load, "combine") == alone
    degraded = TimeModel.of("h200:1x2@5+h200:1x2@1", "deepseek-v3", **fields)
    assert degraded.exchange_ms(load, "combine") == pytest.approx(0.06 + 1e3 * 120_000 * copy_gb / 1, rel=1e-6)
    assert degraded.machine.network_gb_s.tolist() == [2.5, 2.5, 0.5, 0.5]
    assert shared.gather_ms(1000) > 5 * TimeModel.of("h200:2x2", "deepseek-v3", **fields).gather_ms(1000)


@pytest.mark.parametrize("text", ["h200:2x8@", "h200:2x8@-1", "h200:2x8@inf", "h200:2x8@x", "h200:1x8@100"])
def test_uplinks_that_are_none_are_refused(text: str) -> None:
    """A speed above 0, of a machine that has another node."""
    with pytest.raises(InputError):
        Machine.parse(text)


def test_hierarchical_exchange_goes_through_both_tiers() -> None:
    """Within the node first, then between nodes: the sum of both, where others take the slower."""
    load = moved([[20_000, 20_000]] * 4, [[50_000, 50_000]] * 4)
    times = {
        backend: TimeModel.of("h200:2x2", "deepseek-v3", phase="decode", backend=backend).exchange_ms(load, "dispatch")
        for backend in ("hierarchical", "links")
    }
    gb = 7168 * 1.03 / 1e9
    inside, across = 0.03 + 1e3 * 50_000 * gb / (0.7 * 450), 0.06 + 1e3 * 20_000 * gb / (0.7 * 50)
    assert times["hierarchical"] == pytest.approx(inside + across)
    assert times["links"] == pytest.approx(max(inside, across))

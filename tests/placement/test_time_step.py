"""The time of a plan on a trace: what passes do to ranks, and the mean of their slowest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from placement import Objective, Plan, Topology
from placement.replay.replay import Replay, homes_of
from placement.time import PassReplay, TimeModel, step_time
from placement.time.expected import expected_pass
from tests.builders.traces import random_trace
from traces import InputError, Trace
from traces.model.presets import Model, load_model

L, E, K = 3, 16, 4
SMALL: dict[str, Any] = {"phase": "decode", "tokens_per_gpu": 16, "rest_ms": 0.5}


def small_model() -> Model:
    """Return a model of the tests' size: that of a preset, with fewer experts."""
    preset = load_model("qwen3-30b-a3b")
    return replace(preset, shape=replace(preset.shape, num_experts=E, top_k=K))


def a_plan(seed: int, extra: int = 4) -> Plan:
    """Return a plan on 2 x 2 GPUs, with redundant experts."""
    rng = np.random.default_rng(seed)
    table = np.array([np.r_[rng.permutation(E), rng.choice(E, extra, replace=False)] for _ in range(L)])
    for row in table:  # no expert twice on a GPU
        while any(len(set(part)) < len(part) for part in row.reshape(4, -1).tolist()):
            rng.shuffle(row)
    return Plan.of(table, layer_ids=np.arange(L), num_experts=E, gpus_per_node=(2, 2))


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Return 200 tokens."""
    return random_trace(3, 200, L, E, K)


@pytest.mark.parametrize("dedup", ["none", "gpu", "node"])
def test_passes_are_what_the_replay_counts(trace: Trace, dedup: Any) -> None:
    """Loads, messages and distinct tokens of all passes sum to those of the plain replay."""
    topology = Topology.parse("2x2")
    objective = Objective(execution="dispatch", dedup=dedup, ownership="token", replica_policy="same_node")
    settled, plan = objective.settled(capped=False), a_plan(0)
    loads = [load for load, _ in PassReplay(plan, topology, settled).loads(trace, 40)]
    plain = Replay.of(plan.physical_to_logical_map, E, plan.slots_per_gpu, topology, settled)
    for batch in trace.batches():
        plain.add(batch.topk_ids, batch.rows, None, None)
    assert len(loads) == 5
    assert np.array_equal(np.sum([load.counts for load in loads], axis=(0, 3)), plain.load)
    assert np.sum([load.rows for load in loads]) == plain.fanout[:, 0].sum()
    away = plain.traffic * ~np.eye(4, dtype=bool)
    same = topology.node_of_gpu[:, None] == topology.node_of_gpu[None, :]
    for tier, kept in (("inside", same), ("across", ~same)):
        found = sum(getattr(load, tier) for load in loads)
        assert np.array_equal(found[..., 0], (away * kept).sum(axis=2))
        assert np.array_equal(found[..., 1], (away * kept).sum(axis=1))


def test_hierarchical_copies_go_through_the_rank_of_their_index(trace: Trace) -> None:
    """One per expert: within the node to the rank with the target's index, then to the target in its own node."""
    topology, plan = Topology.parse("2x2"), a_plan(0, extra=0)
    objective = Objective(execution="dispatch", dedup="none", ownership="token").settled(capped=False)
    replay = PassReplay(plan, topology, objective, relayed=True)
    ((load, _),) = replay.loads(trace, 200)
    tables = plan.physical_to_logical_map
    homes = homes_of(objective, 4, np.arange(200, dtype=np.uint64), None, None)
    sent = np.zeros((4, 4), np.int64)
    for batch in trace.batches():
        for row, ids in enumerate(batch.topk_ids[:, 0]):
            for expert in ids[ids >= 0]:
                home, target = int(homes[row]), int(np.flatnonzero(tables[0] == expert)[0]) // plan.slots_per_gpu
                relay = 2 * (home // 2) + target % 2
                sent[home, relay] += 1
                sent[relay, target] += 1
    np.fill_diagonal(sent, 0)
    same = np.repeat(np.arange(2), 2)[:, None] == np.repeat(np.arange(2), 2)
    for tier, where in ((load.inside, same), (load.across, ~same)):
        assert tier[0].T.tolist() == [(sent * where).sum(axis=1).tolist(), (sent * where).sum(axis=0).tolist()]
    assert (sent[[0, 1], [3, 2]] == 0).all()  # between nodes, only ranks of the same index talk


def test_counts_go_to_the_slots_that_hold_the_expert(trace: Trace) -> None:
    """Tokens of an expert's slots are the tokens of the expert."""
    objective = Objective(execution="dispatch", ownership="token").settled(capped=False)
    plan = a_plan(1)
    load, _ = next(PassReplay(plan, Topology.parse("2x2"), objective).loads(trace, 200))
    found = np.zeros((L, E), np.int64)
    for layer in range(L):
        np.add.at(found[layer], plan.physical_to_logical_map[layer], load.counts[layer].ravel())
    ids = next(trace.batches()).topk_ids
    assert np.array_equal(found, [np.bincount(ids[:, layer].ravel(), minlength=E) for layer in range(L)])


def test_context_coherent_tokens_move_from_layer_to_layer() -> None:
    """One copy per pair of distinct GPUs, in the layer that it leaves."""
    ids = np.array([[[0], [1], [1]], [[0], [0], [2]]])
    trace = Trace.of(ids, num_experts=4)
    table = np.tile(np.arange(4), (3, 1))
    plan = Plan.of(table, layer_ids=np.arange(3), num_experts=4, gpus_per_node=(2, 2))
    objective = Objective(execution="context_coherent").settled(capped=False)
    load, _ = next(PassReplay(plan, Topology.parse("2x2"), objective).loads(trace, 2))
    assert load.inside[..., 0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert load.across[..., 1].tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_step_is_the_mean_over_passes_of_the_slowest(trace: Trace) -> None:
    """Against the parts put together by hand: never the slowest of the mean."""
    time, plan = TimeModel.of("h200:2x2", small_model(), **SMALL), a_plan(2)
    found = step_time(plan, trace, time)
    objective = Objective(execution="dispatch", dedup="none", ownership="token", replica_policy="same_node")
    replay = PassReplay(plan, time.machine.topology(), objective.settled(capped=False))
    steps = []
    for load, _ in replay.loads(trace, 64):
        experts = time.rank_ms(load).max(axis=1)
        exchange = time.exchange_ms(load, "dispatch") + time.exchange_ms(load, "combine")
        steps.append((experts + exchange + 0.5).sum() + 0.5 * time.dense_layers)
    assert found.passes == len(steps) == 3
    assert found.step_ms == pytest.approx(np.mean(steps))
    assert found.pass_ms == pytest.approx(np.array(steps))
    assert found.moe_ms == pytest.approx(found.step_ms - 0.5 * L)


def test_two_batches_overlap(trace: Trace) -> None:
    """Half of the shorter of exchange and computing is hidden, of halves that are timed by themselves."""
    plain, both = (TimeModel.of("h200:2x2", small_model(), **SMALL, overlap=name) for name in ("none", "two_batch"))
    objective = Objective(execution="dispatch", dedup="none", ownership="token", replica_policy="same_node")
    replay = PassReplay(a_plan(2), plain.machine.topology(), objective.settled(capped=False))
    half, _ = next(replay.loads(trace, 64))
    parts = {name: getattr(half, name) * 2 for name in ("counts", "rows", "inside", "across")}
    whole = replace(half, tokens=128, **parts)
    times, alone, once = both.layer_times(whole), plain.layer_times(whole), plain.layer_times(half)
    for name in ("dispatch", "experts", "combine"):
        expected = np.maximum(getattr(alone, name), 2 * getattr(once, name))
        assert getattr(times, name) == pytest.approx(expected)
    exchange, compute = times.dispatch + times.combine, times.experts + 0.5
    layers = np.maximum(exchange, compute) + 0.5 * np.minimum(exchange, compute)
    assert both.step_ms(times) == pytest.approx(layers.sum() + 0.5 * both.dense_layers)


def test_overlap_pays_for_large_batches_alone() -> None:
    """Two halves of a small batch read all weights twice: SGLang lost 27 % in decode with 32 tokens per GPU."""
    table, shares = np.arange(256)[None], np.full((1, 256), 1 / 256)
    plan = Plan.of(table, layer_ids=[0], num_experts=256, gpus_per_node=(8,) * 4)
    gains = []
    for phase, tokens in (("decode", 32), ("prefill", 8192)):
        steps = []
        for overlap in ("none", "two_batch"):
            asked: dict[str, Any] = {"phase": phase, "tokens_per_gpu": tokens, "overlap": overlap}
            time = replace(TimeModel.of("h100:4x8", "deepseek-v3", **asked), dense_layers=0)
            load = expected_pass(plan, shares, tokens=32 * tokens, top_k=8, dedup=time.dedup)
            steps.append(time.step_ms(time.layer_times(load)))
        gains.append(steps[0] / steps[1] - 1)
    assert -0.4 < gains[0] < -0.2
    assert 0.2 < gains[1] < 0.4  # 27 to 35 % there, with loads that were not even


def test_rank_time_is_that_of_its_kernel(trace: Trace) -> None:
    """Device classes have their own kernels."""
    time = TimeModel.of("h200:1x2+a100:1x2", small_model(), **SMALL)
    objective = Objective(execution="dispatch", ownership="token").settled(capped=False)
    load, _ = next(PassReplay(a_plan(0), time.machine.topology(), objective).loads(trace, 64))
    found = time.rank_ms(load)
    for rank, kernel in zip(range(4), (time.kernels[0],) * 2 + (time.kernels[1],) * 2, strict=True):
        expected = kernel.rank_ms(load.counts[:, rank], load.rows[:, rank], time.model.shape)
        assert found[:, rank] == pytest.approx(expected)


def test_context_coherent_steps_gather_once(trace: Trace) -> None:
    """Tokens never go home; every pass begins with an AllGather."""
    plan, time = a_plan(0), TimeModel.of("h200:2x2", small_model(), **SMALL)
    found = step_time(plan, trace, time, execution="context_coherent")
    assert not found.combine_ms.any()
    assert found.dispatch_ms[-1] == 0
    assert found.gather_ms == pytest.approx(time.gather_ms(64))
    parts = found.dispatch_ms.sum() + found.experts_ms.sum() + found.gather_ms
    assert found.moe_ms == pytest.approx(parts)


def test_short_trace_is_scaled_up_and_said(trace: Trace) -> None:
    """A trace shorter than a pass makes one, with a note."""
    asked = SMALL | {"tokens_per_gpu": 1000}
    found = step_time(a_plan(0), trace, TimeModel.of("h200:2x2", small_model(), **asked))
    assert (found.passes, found.scale) == (1, 20)
    assert "20 times shorter" in found.notes[-1]


def test_a_busier_rank_takes_longer() -> None:
    """With all hot experts on one GPU, prefill waits for it."""
    rng = np.random.default_rng(0)
    weights = np.r_[np.full(4, 20.0), np.ones(12)]
    ids: npt.NDArray[np.int64] = np.argsort(rng.gumbel(size=(8000, 1, E)) + np.log(weights), axis=2)[..., -K:]
    trace = Trace.of(ids, num_experts=E)
    time = TimeModel.of("h200:1x4", small_model(), phase="prefill", tokens_per_gpu=2000, rest_ms=0.5)
    hot, spread = np.arange(E)[None], np.arange(E).reshape(4, 4).T.reshape(1, E)
    plans = [Plan.of(table, layer_ids=[0], num_experts=E, gpus_per_node=(4,)) for table in (hot, spread)]
    slow, quick = (step_time(plan, trace, time) for plan in plans)
    assert slow.experts_ms[0] > 1.5 * quick.experts_ms[0]


@pytest.mark.parametrize(
    ("machine", "code"), [("h200:1x4", "nodes_differ"), ("h200:2x4", "gpus_differ"), ("h200:2x2", "experts_differ")]
)
def test_what_does_not_fit_is_refused(trace: Trace, machine: str, code: str) -> None:
    """Machine and model are those of plan and trace."""
    model = small_model() if code != "experts_differ" else load_model("mixtral-8x7b")
    with pytest.raises(InputError, match=code):
        step_time(a_plan(0), trace, TimeModel.of(machine, model, **SMALL))

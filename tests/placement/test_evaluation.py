"""Evaluation against plain Python: every metric, every policy, with replicas."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Plan, Topology, evaluate
from placement.replay.evaluate import Asked, evaluate_together
from tests.builders.problems import random_table
from tests.builders.traces import random_ids, random_trace
from traces import InputError, Provenance, Trace

LAYERS, EXPERTS = 3, 6
MASK = 2**64 - 1
POLICIES = ("fair", "same_gpu", "same_node")


def mix(x: int) -> int:
    """SplitMix64's finaliser in plain integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def home_of(key: int, gpus: int) -> int:
    """Hashed home of a row or sequence."""
    return mix((key + 0x9E3779B97F4A7C15) & MASK) % gpus


def pick(row: int, layer: int, expert: int, count: int) -> int:
    """Hashed choice among equal replicas."""
    key = (row * 0x9E3779B97F4A7C15 + layer * 65536 + expert) & MASK
    return mix((key + 0xD1B54A32D192ED03) & MASK) % count


def choose(gpus: list[int], anchors: list[int], policy: str, node: Any, where: tuple[int, int, int]) -> int:
    """Replica that a token uses, by the definition of the policies."""
    if len(gpus) == 1:
        return gpus[0]
    if policy != "fair":
        for anchor in anchors:
            if anchor in gpus:
                return anchor
    if policy == "same_node":
        for anchor in anchors:
            near = [gpu for gpu in gpus if node[gpu] == node[anchor]]
            if near:
                return near[pick(*where, len(near))]
    return gpus[pick(*where, len(gpus))]


def random_plan(rng: np.random.Generator, sizes: tuple[int, ...], slots: int, layers: int = LAYERS) -> Plan:
    """Every expert once, the spare slots empty or with a replica on another GPU."""
    table = random_table(rng, layers, EXPERTS, sum(sizes), slots, "either")
    return Plan.of(table, layer_ids=np.arange(layers), num_experts=EXPERTS, gpus_per_node=sizes)


def replay(
    plan: Plan, ids: Any, homes: list[int] | None, topology: Topology, dedup: str, policy: str
) -> dict[str, Any]:
    """All metrics, token by token; `homes` None is context-coherent."""
    node, gpus, hop = topology.node_of_gpu.tolist(), topology.num_gpus, topology.hop_cost
    matrix, load = np.zeros((gpus, gpus), int), np.zeros((LAYERS, gpus), int)
    cross = {"gpu": 0, "node": 0}
    remote = {"gpu": 0, "node": 0}
    fan = {"gpu": 0, "node": 0}
    pairs = assigned = active = 0
    slots = [[[s // plan.slots_per_gpu for s in np.flatnonzero(row == e)] for e in range(EXPERTS)]
             for row in plan.physical_to_logical_map]  # fmt: skip
    for row, token in enumerate(ids.tolist()):
        before: list[int] = []
        for layer, experts in enumerate(token):
            anchors = before if homes is None else [homes[row]]
            here = [choose(slots[layer][e], anchors, policy, node, (row, layer, e)) for e in experts if e >= 0]
            for gpu in here:
                load[layer, gpu] += 1
            assigned += len(here)
            active += bool(here)
            fan["gpu"] += len(set(here))
            fan["node"] += len({node[gpu] for gpu in here})
            if homes is None:
                for a, b in product(before, here):
                    matrix[a, b] += 1
                    pairs += 1
                    cross["gpu"] += a != b
                    cross["node"] += node[a] != node[b]
            else:
                home = homes[row]
                cross["gpu"] += sum(gpu != home for gpu in here)
                cross["node"] += sum(node[gpu] != node[home] for gpu in here)
                remote["gpu"] += len(set(here) - {home})
                remote["node"] += len({node[gpu] for gpu in here} - {node[home]})
                if dedup == "none":
                    for gpu in here:
                        matrix[home, gpu] += 1
                elif dedup == "gpu":
                    for gpu in set(here):
                        matrix[home, gpu] += 1
                else:
                    for n in {node[gpu] for gpu in here}:
                        matrix[home, topology.entry_gpu[home, n]] += 1
                    for gpu in set(here):
                        if (entry := topology.entry_gpu[home, node[gpu]]) != gpu:
                            matrix[entry, gpu] += 1
            before = here
    whole = pairs if homes is None else assigned
    messages = active if homes is not None and dedup != "none" else whole
    mean = load.mean(axis=1)
    return {
        "tokens": len(ids),
        "cross_gpu_fraction": cross["gpu"] / max(whole, 1),
        "cross_node_fraction": cross["node"] / max(whole, 1),
        "fanout_gpus": fan["gpu"] / active,
        "fanout_nodes": fan["node"] / active,
        "remote_gpus": None if homes is None else remote["gpu"] / active,
        "remote_nodes": None if homes is None else remote["node"] / active,
        "traffic": float((matrix * hop).sum()) / max(messages, 1),
        "imbalance_max_over_mean": float((load.max(axis=1) / mean).mean()),
        "balancedness_whole_trace": float(mean.sum() / load.max(axis=1).sum()),
        "traffic_matrix": matrix,
        "gpu_load": load,
    }


def check(result: Any, wanted: dict[str, Any]) -> None:
    """Compare all metrics."""
    for name, value in wanted.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(getattr(result, name), value), name
        else:
            assert getattr(result, name) == (None if value is None else pytest.approx(value, abs=1e-12)), name


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.sampled_from([(2, 2), (1, 2), (3,), (3, 1, 2)]),
    slots=st.integers(3, 4),
    policy=st.sampled_from(POLICIES),
    missing=st.sampled_from([0.0, 0.4]),
)
def test_context_coherent_equals_plain_replay(
    seed: int, sizes: tuple[int, ...], slots: int, policy: Any, missing: float
) -> None:
    """Every metric is what a loop over tokens and pairs counts."""
    if sum(sizes) * slots < EXPERTS:
        slots = EXPERTS
    rng = np.random.default_rng(seed)
    plan, ids, topology = random_plan(rng, sizes, slots), random_ids(rng, 30, LAYERS, EXPERTS), Topology.of(sizes)
    ids[1:][rng.random(ids[1:].shape) < missing] = -1
    result = evaluate(plan, Trace.of(ids, num_experts=EXPERTS), topology, replica_policy=policy, workers=1)
    check(result, replay(plan, ids, None, topology, "gpu", policy))
    assert result.dedup is None


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.sampled_from([(2, 2), (1, 2), (3,), (3, 1, 2)]),
    policy=st.sampled_from(POLICIES),
    dedup=st.sampled_from(["none", "gpu", "node"]),
    ownership=st.sampled_from(["token", "sequence", "measured"]),
    missing=st.sampled_from([0.0, 0.4]),
)
def test_dispatch_equals_plain_replay(
    seed: int, sizes: tuple[int, ...], policy: Any, dedup: Any, ownership: Any, missing: float
) -> None:
    """Every metric is what a loop over tokens and messages counts, whatever the homes, messages and replicas."""
    rng = np.random.default_rng(seed)
    plan, ids, topology = random_plan(rng, sizes, 4), random_ids(rng, 30, LAYERS, EXPERTS, 3), Topology.of(sizes)
    ids[1:][rng.random(ids[1:].shape) < missing] = -1
    seq, rank = rng.integers(0, 5, 30), rng.integers(0, sum(sizes), 30)
    homes = {
        "token": [home_of(row, sum(sizes)) for row in range(30)],
        "sequence": [home_of(int(s), sum(sizes)) for s in seq],
        "measured": rank.tolist(),
    }[ownership]
    result = evaluate(
        plan,
        Trace.of(ids, num_experts=EXPERTS, seq_id=seq, source_rank=rank),
        topology,
        execution="dispatch",
        dedup=dedup,
        ownership=ownership,
        replica_policy=policy,
        workers=2,
    )
    check(result, replay(plan, ids, homes, topology, dedup, policy))


def test_judge_definitions() -> None:
    """Without replicas the metrics are those of a few lines of NumPy over the expert-to-GPU table."""
    rng = np.random.default_rng(0)
    ids, topology = random_ids(rng, 200, LAYERS, EXPERTS), Topology.parse("2x1")
    plan = random_plan(rng, (1, 1), 3)
    gpu = np.take_along_axis(plan.gpu_of_expert[None].repeat(200, 0), ids.astype(int), axis=2)
    result = evaluate(plan, Trace.of(ids, num_experts=EXPERTS), topology)
    assert result.cross_gpu_fraction == pytest.approx((gpu[:, :-1, :, None] != gpu[:, 1:, None, :]).mean())
    assert result.fanout_gpus == pytest.approx((1 + (gpu[:, :, 0] != gpu[:, :, 1])).mean())
    load = np.stack([np.bincount(gpu[:, layer].ravel(), minlength=2) for layer in range(LAYERS)])
    assert result.imbalance_max_over_mean == pytest.approx((load.max(1) / load.mean(1)).mean())
    assert result.balancedness_whole_trace == pytest.approx(load.mean(1).sum() / load.max(1).sum())


@pytest.mark.parametrize("execution", ["context_coherent", "dispatch"])
def test_workers_and_id_types_do_not_matter(execution: Any) -> None:
    """Threads and the type of the ids change nothing."""
    rng = np.random.default_rng(1)
    ids, plan = random_ids(rng, 101, LAYERS, EXPERTS), random_plan(rng, (2, 2), 3)
    one = evaluate(plan, Trace.of(ids, num_experts=EXPERTS), Topology.parse("2x2"), execution=execution, workers=1)
    trace = Trace.of(ids.astype(np.uint8), num_experts=EXPERTS)
    many = evaluate(plan, trace, Topology.parse("2x2"), execution=execution, workers=7)
    assert one.as_dict() == many.as_dict()


def test_hottest_links_rank_what_leaves() -> None:
    """The hottest links are the largest entries off the diagonal, with their share."""
    rng = np.random.default_rng(2)
    plan = random_plan(rng, (2, 2), 3)
    result = evaluate(plan, random_trace(rng, 50, LAYERS, EXPERTS), Topology.parse("2x2"))
    leaving = result.traffic_matrix * ~np.eye(4, dtype=bool)
    assert [link.messages for link in result.hottest_links] == sorted(leaving[leaving > 0].tolist(), reverse=True)[:8]
    for link in result.hottest_links:
        assert leaving[link.source, link.target] == link.messages
        assert link.share == pytest.approx(link.messages / leaving.sum())


def test_mismatches_are_listed_together() -> None:
    """Another number of GPUs, experts and layers are named in one error."""
    rng = np.random.default_rng(3)
    trace = Trace.of(np.zeros((4, 2, 1), int), num_experts=EXPERTS + 1)
    with pytest.raises(InputError) as error:
        evaluate(random_plan(rng, (2, 2), 3), trace, Topology.parse("1x2"))
    assert {item.code for item in error.value.violations} == {"gpus_differ", "experts_differ", "layers_differ"}


@pytest.mark.parametrize("stated", [EXPERTS - 1, EXPERTS // 2, EXPERTS + 1])
def test_another_number_of_experts_is_refused(stated: int) -> None:
    """A trace that states another number of experts than the plan has is of another model, even if its ids fit."""
    plan, ids = random_plan(np.random.default_rng(0), (2, 2), 3), np.zeros((4, LAYERS, 1), int)
    with pytest.raises(InputError) as error:
        evaluate(plan, Trace.of(ids, num_experts=stated), Topology.parse("2x2"))
    assert [item.code for item in error.value.violations] == ["experts_differ"]
    inferred = Trace.of(ids, num_experts=EXPERTS // 2, provenance=Provenance(source="a", experts_inferred=True))
    assert evaluate(plan, inferred, Topology.parse("2x2")).tokens == 4, "what no token used is not known to be missing"


def test_empty_trace_is_refused() -> None:
    """No tokens, no verdict."""
    trace = Trace.of(np.zeros((0, LAYERS, 1), int), num_experts=EXPERTS)
    with pytest.raises(InputError, match="zero_tokens"):
        evaluate(random_plan(np.random.default_rng(4), (2, 2), 3), trace, Topology.parse("2x2"))


@pytest.mark.parametrize("ownership", ["sequence", "measured"])
def test_missing_column_is_refused(ownership: Any) -> None:
    """Homes by a column that the trace lacks are an input error."""
    rng = np.random.default_rng(5)
    trace = random_trace(rng, 4, LAYERS, EXPERTS)
    with pytest.raises(InputError, match="/objective/ownership"):
        evaluate(random_plan(rng, (2, 2), 3), trace, Topology.parse("2x2"), execution="dispatch", ownership=ownership)


def per_pass(plan: Plan, ids: Any, size: int) -> dict[str, Any]:
    """Balance per pass of so many tokens by its definition, for a plan without replicas."""
    gpu_of = [{e: s // plan.slots_per_gpu for s, e in enumerate(row) if e >= 0} for row in plan.physical_to_logical_map]
    vllm, sglang, trtllm = [], [], []
    for start in range(0, len(ids) - size + 1, size):
        load = np.zeros((len(gpu_of), plan.num_gpus))
        for token in ids[start : start + size].tolist():
            for layer, experts in enumerate(token):
                for expert in experts:
                    if expert >= 0:
                        load[layer, gpu_of[layer][expert]] += 1
        if not load.any():
            continue
        mean, most = load.mean(axis=1), load.max(axis=1)
        there = most > 0
        vllm.append(mean.sum() / most.sum())
        sglang.append((mean[there] / most[there]).mean())
        trtllm.append(((most[there] - mean[there]) / mean[there]).mean())
    means = [float(np.mean(values)) if values else None for values in (vllm, sglang, trtllm)]
    names = ("balancedness_vllm", "utilization_sglang", "imbalance_trtllm")
    return {"pass_tokens": size, "passes": len(vllm)} | dict(zip(names, means, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    tokens=st.integers(1, 60),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=3, unique=True),
    missing=st.sampled_from([0.0, 0.7]),
    workers=st.integers(1, 3),
    execution=st.sampled_from(["dispatch", "context_coherent"]),
)
def test_balance_per_pass_is_by_its_definition(
    seed: int, tokens: int, sizes: list[int], missing: float, workers: int, execution: Any
) -> None:
    """Means over whole passes, whatever the sizes, the threads and the way that tokens travel."""
    rng = np.random.default_rng(seed)
    table = np.stack([rng.permutation(EXPERTS) for _ in range(LAYERS)])
    plan = Plan.of(table, layer_ids=np.arange(LAYERS), num_experts=EXPERTS, gpus_per_node=(3,))
    ids = random_ids(rng, tokens, LAYERS, EXPERTS, missing=missing)
    trace = Trace.of(ids, num_experts=EXPERTS)
    sizes = sorted({min(size, tokens) for size in sizes})
    options: Any = {"execution": execution, "pass_tokens": sizes, "workers": workers}
    found = evaluate(plan, trace, Topology.parse("1x3"), **options)
    for item, size in zip(found.per_pass, sizes, strict=True):
        wanted = per_pass(plan, ids, size)
        assert vars(item) == {name: value if value is None else pytest.approx(value) for name, value in wanted.items()}


def test_passes_go_on_from_batch_to_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass does not end where a batch does."""
    trace = random_trace(3, 200, LAYERS, EXPERTS)
    plan = random_plan(np.random.default_rng(0), (3,), 3)
    wanted = evaluate(plan, trace, Topology.parse("1x3"), pass_tokens=[7, 30]).per_pass
    monkeypatch.setattr("placement.replay.evaluate._batch_tokens", lambda cell: 11)
    found = evaluate(plan, trace, Topology.parse("1x3"), pass_tokens=[7, 30]).per_pass
    assert [vars(item) for item in found] == [pytest.approx(vars(item)) for item in wanted]
    assert [item.passes for item in wanted] == [28, 6]


def test_a_hot_spot_that_moves_shows_per_pass() -> None:
    """Over the whole trace the load is even; in every pass one GPU has all of it."""
    plan = Plan.of([[0, 1, 2, 3]], layer_ids=[0], num_experts=4, gpus_per_node=(4,))
    trace = Trace.of((np.arange(256) // 64)[:, None, None], num_experts=4)
    found = evaluate(plan, trace, Topology.parse("1x4"), pass_tokens=[64, 256])
    assert (found.imbalance_max_over_mean, found.balancedness_whole_trace) == (1, 1)
    assert [item.balancedness_vllm for item in found.per_pass] == [0.25, 1]
    assert [item.imbalance_trtllm for item in found.per_pass] == [3, 0]
    assert [item.pass_tokens for item in evaluate(plan, trace, Topology.parse("1x4")).per_pass] == [64, 256, 2048]


def test_sizes_of_passes_are_checked() -> None:
    """All that are no numbers of tokens are told at once."""
    plan = Plan.of([[0, 1]], layer_ids=[0], num_experts=2, gpus_per_node=(2,))
    trace = Trace.of(np.zeros((4, 1, 1), int), num_experts=2)
    sizes: Any = [0, 8, 2.5]
    with pytest.raises(InputError) as error:
        evaluate(plan, trace, Topology.parse("1x2"), pass_tokens=sizes)
    assert [item.pointer for item in error.value.violations] == ["/pass_tokens/0", "/pass_tokens/2"]


def test_passes_longer_than_the_trace_are_refused() -> None:
    """They would have no figures; the sizes that nobody asked for may."""
    plan = Plan.of([[0, 1]], layer_ids=[0], num_experts=2, gpus_per_node=(2,))
    trace = Trace.of(np.zeros((8, 1, 1), int), num_experts=2)
    with pytest.raises(InputError, match="8 tokens, which make no pass of 9") as error:
        evaluate(plan, trace, Topology.parse("1x2"), pass_tokens=[8, 9])
    assert [item.pointer for item in error.value.violations] == ["/pass_tokens/1"]
    assert [item.passes for item in evaluate(plan, trace, Topology.parse("1x2")).per_pass] == [0, 0, 0]


def test_plans_replayed_together_are_as_replayed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass for all, or several where memory is short: the figures of each are those of a replay of its own."""
    trace = random_trace(3, 300, LAYERS, EXPERTS)
    parts = dict(zip(("fit", "held"), trace.split(0.5), strict=True))
    rng, topology = np.random.default_rng(5), Topology.parse("2x2")
    plans = [random_plan(rng, (2, 2), 3) for _ in range(2)]
    options = [{"execution": "dispatch", "dedup": "node"}, {"execution": "context_coherent"}]
    asked = {
        (part, (number, way)): Asked(plan, topology, options[way] | {"pass_tokens": (32,)})
        for part in parts
        for number, plan in enumerate(plans)
        for way in range(2)
    }
    alone = {
        (part, key): evaluate(what.plan, parts[part], topology, workers=1, **what.options)
        for (part, key), what in asked.items()
    }
    assert evaluate_together(parts, asked, workers=2) == alone
    monkeypatch.setattr("placement.replay.evaluate.PASS_BYTES", 1)
    assert evaluate_together(parts, asked, workers=2) == alone

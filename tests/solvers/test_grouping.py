"""Requests to workers and experts to GPUs together: the bound, the alternation, what is judged held out."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import solvers
from placement import Objective, Problem, Topology, score
from solvers.arrange.conform import pack
from solvers.grouping.bound import least_cost, least_hops
from solvers.grouping.search import cost_of, hops_to_gpus, imbalance_of, on_gpus, placed, together
from solvers.grouping.signatures import signatures_of
from solvers.grouping.timing import served
from tests.builders.traces import profile_of
from traces import InputError, LoadCounts, Trace

BY_HOPS = Objective(execution="dispatch", dedup="none", imbalance_weight=0.0)


def planted(groups: int, requests: int, *, tokens: int = 20, experts: int = 8, seed: int = 0) -> Trace:
    """Return a trace of requests that prefer the experts of their group in each of two layers."""
    rng = np.random.default_rng(seed)
    own = np.stack([rng.permutation(experts) for _ in range(2)]).reshape(2, groups, -1)
    group = rng.integers(0, groups, requests)
    ids = np.empty((requests * tokens, 2, 1), np.int16)
    for request in range(requests):
        for layer in range(2):
            known = own[layer, group[request]]
            drawn = np.where(rng.random(tokens) < 0.9, rng.choice(known, tokens), rng.integers(0, experts, tokens))
            ids[request * tokens : (request + 1) * tokens, layer, 0] = drawn
    return Trace.of(ids, num_experts=experts, seq_id=np.arange(requests).repeat(tokens))


def problem_of(topology: str, slots: int, experts: int = 4, weight: float = 0.0) -> Problem:
    """Return sizes only: what is used is said apart."""
    trace = Trace.of(np.arange(experts).reshape(-1, 1, 1), num_experts=experts)
    return Problem(profile_of(trace), Topology.parse(topology), slots, replace(BY_HOPS, imbalance_weight=weight))


def best(problem: Problem, uses: npt.NDArray[np.float64], per_gpu: int) -> float:
    """Return the least cost over all groupings, each layer placed by trying all plans."""
    gpus, slots = problem.num_gpus, problem.slots_per_gpu
    plans = [
        plan for plan in product(range(gpus), repeat=problem.num_experts) if max(map(plan.count, range(gpus))) <= slots
    ]
    cost = np.stack(
        [
            [hops_to_gpus(problem, uses[:, layer : layer + 1], np.array([plan])) for plan in plans]
            for layer in range(uses.shape[1])
        ]
    )  # (L, plans, R, G)
    load, fair = uses.sum(axis=0), problem.topology.fair_share
    largest = [
        [
            max(of_layer[np.array(plan) == gpu].sum() / fair[gpu] for gpu in range(gpus)) / of_layer.sum()
            for plan in plans
        ]
        for of_layer in load
    ]
    above = problem.objective.imbalance_weight * (np.array(largest) - 1) / len(load)  # (L, plans)
    workers = [row for row in product(range(gpus), repeat=len(uses)) if max(map(row.count, range(gpus))) <= per_gpu]
    rows = np.arange(len(uses))
    total = uses.sum()
    return float(min((cost[:, :, rows, list(row)].sum(axis=2) / total + above).min(axis=1).sum() for row in workers))


@pytest.mark.parametrize("weight", [0.0, 0.3, 30.0])
@pytest.mark.parametrize(("topology", "slots"), [("1x2", 2), ("1x2", 3), ("2x2", 1), ("2+1", 2)])
def test_nothing_beats_the_bound(topology: str, slots: int, weight: float) -> None:
    """Of all groupings of four or five requests with all plans of four experts, and the search is never below them."""
    rng = np.random.default_rng(slots)
    problem = problem_of(topology, slots, weight=weight)
    for requests in (4, 5):
        for _ in range(3):
            uses = rng.random((requests, 2, 4)) ** 3
            per_gpu = -(-requests // problem.num_gpus)
            least = best(problem, uses, per_gpu)
            found = together(problem, uses, per_gpu, restarts=8, seed=0)
            assert least_cost(problem, uses, per_gpu) <= least <= found.cost + 1e-9
            assert np.bincount(found.worker).max() <= per_gpu
            assert all(np.bincount(row, minlength=problem.num_gpus).max() <= slots for row in found.gpu)


def test_experts_are_placed_as_well_as_trying_all_plans_does() -> None:
    """For requests on GPUs that are given, in every layer, under hops and loads; a plan to begin with is no worse."""
    rng = np.random.default_rng(0)
    problem, worker = problem_of("1x2", 3, experts=6, weight=2.0), np.arange(6) % 2
    plans = [np.array(plan) for plan in product(range(2), repeat=6) if sum(plan) == 3]

    def cost(uses: npt.NDArray[np.float64], gpu: npt.NDArray[np.int64]) -> float:
        hops = hops_to_gpus(problem, uses, gpu)[np.arange(6), worker].sum()
        [imbalance] = imbalance_of(problem, on_gpus(uses.sum(axis=0, keepdims=True), gpu, 2))
        return float(cost_of(problem, hops, uses.sum(), imbalance))

    for _ in range(10):
        uses = rng.random((6, 1, 6)) ** 3
        least = min(cost(uses, plan[None]) for plan in plans)
        assert cost(uses, placed(problem, uses, worker)) == pytest.approx(least, rel=0.02)
        assert cost(uses, placed(problem, uses, worker, plans[0][None])) <= cost(uses, plans[0][None]) + 1e-12


def test_planted_groups_are_found_and_the_bound_is_met() -> None:
    """Requests that use nothing but the experts of their group: no token travels."""
    uses = np.zeros((6, 2, 4))
    for request, (layer, group) in product(range(6), product(range(2), range(2))):
        uses[request, layer, [group, group + 2]] = float(request % 2 == group)
    problem = problem_of("1x2", 2)
    assert together(problem, uses, 3, restarts=4, seed=0).hops == 0
    assert least_hops(problem, uses, 3) == pytest.approx(0, abs=1e-6)
    even = np.ones((6, 2, 4))  # whatever is done, half of the uses travel
    assert least_hops(problem, even, 3) == pytest.approx(24)


def test_names_of_requests_and_experts_do_not_matter() -> None:
    """The bound is the same for any order of both."""
    rng = np.random.default_rng(0)
    uses, problem = rng.random((6, 1, 4)), problem_of("1x2", 2)
    bounds = [least_hops(problem, uses[::-1][:, :, list(order)], 3) for order in permutations(range(4))]
    assert np.allclose(bounds, least_hops(problem, uses, 3))


def test_held_out_requests_are_better_off_together() -> None:
    """Sent by their first halves, judged by their second ones; beyond the noise, and the bound is below the cost."""
    trace = planted(4, 96)
    found = solvers.group_requests(trace, "1x4", imbalance_weight=0.0)
    rows = {row.name: row for row in found.rows}
    assert rows["joint"].hops < 0.7 * rows["neither"].hops
    assert all(rows[name].above_low > 0 for name in ("grouped", "placed", "neither"))
    assert 0 < found.bound <= found.cost
    assert (found.fitted, found.held_out) == (48, 48)
    assert np.bincount(found.worker).tolist() == [12, 12, 12, 12]
    assert found.plan.replicas.max() == 1
    assert "fewer hops" in found.sentence
    assert set(found.as_dict()["rows"][0]) >= {"name", "hops", "imbalance"}


def test_with_a_weight_of_loads_gpus_are_as_busy_as_each_other() -> None:
    """More hops and a more even load than without; experts of unequal groups are apart if that is what it takes."""
    trace = planted(3, 96, experts=12)
    even, near = (solvers.group_requests(trace, "1x4", imbalance_weight=weight) for weight in (None, 0.0))
    assert even.imbalance_weight == 30.0
    assert even.rows[0].imbalance < near.rows[0].imbalance
    assert even.rows[0].hops > near.rows[0].hops
    assert even.bound <= even.cost
    for row in even.rows:
        assert row.cost == pytest.approx(row.hops + 30 * (row.imbalance - 1))
        assert row.low < row.high
    assert "'placed' costs no more on held-out requests" in even.sentence
    ahead = replace(even, rows=(even.rows[0], replace(even.rows[1], cost=9.0, above_low=0.1)))
    assert "max/mean load" in ahead.sentence


def test_the_cost_is_the_one_cost_function() -> None:
    """Of requests at home on their GPUs, a token each in every layer: hops and loads are those of `score`."""
    rng = np.random.default_rng(3)
    ids, worker = rng.integers(0, 6, (24, 3, 1)).astype(np.int16), np.arange(24) % 4
    trace = Trace.of(ids, num_experts=6, source_rank=worker)
    asked = Objective(execution="dispatch", dedup="none", ownership="measured", replica_policy="fair")
    weights = replace(asked, imbalance_weight=7.0, load_spread_weight=0.0)
    problem = Problem(profile_of(trace), Topology.parse("2x2"), 2, weights)
    uses = (ids == np.arange(6)).astype(np.float64)
    gpu = placed(problem, uses, worker)
    hops = hops_to_gpus(problem, uses, gpu)[np.arange(24), worker].sum()
    [imbalance] = imbalance_of(problem, on_gpus(uses.sum(axis=0, keepdims=True), gpu, 4))
    table = pack(np.tile(np.arange(6), (3, 1)), gpu, 4, 2)
    assert cost_of(problem, hops, uses.sum(), imbalance) == pytest.approx(score(problem, table).total)


def test_dropped_tokens_are_no_uses() -> None:
    """A token without an expert in a layer counts for none there."""
    trace = planted(2, 24)
    ids = np.concatenate([batch.topk_ids for batch in trace.batches()]).astype(np.int16)
    ids[3, 1, 0] = -1
    told = signatures_of(Trace.of(ids, num_experts=8, seq_id=np.arange(24).repeat(20)))
    uses = told.whole * told.tokens[:, None, None]
    assert uses.sum(axis=(0, 2)).tolist() == pytest.approx([480, 479])


def test_signatures_are_means_over_halves() -> None:
    """Whatever the batches; a request of one token is left out."""
    ids = np.array([0, 1, 1, 2, 3, 3])[:, None, None]
    found = signatures_of(Trace.of(ids, num_experts=4, seq_id=np.array([7, 7, 9, 7, 9, 5])))
    assert found.first[:, 0].tolist() == [[0.5, 0.5, 0, 0], [0, 1, 0, 0]]
    assert found.second[:, 0].tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("source", "asked", "code"),
    [
        (planted(2, 6), {}, "few_requests"),
        (Trace.of(np.zeros((4, 1, 1), np.int16), num_experts=4), {}, "no_sequences"),
        (planted(2, 20), {"restarts": 0}, "restarts_range"),
        (planted(2, 20), {"imbalance_weight": -1.0}, "imbalance_weight_range"),
        (planted(2, 20), {"hold_out": 1.0}, "hold_out_range"),
        (planted(2, 20), {"slots_per_gpu": 1}, "more_experts_than_slots"),
    ],
)
def test_what_does_not_fit_is_refused(source: Any, asked: dict[str, Any], code: str) -> None:
    """With its code."""
    with pytest.raises(InputError) as caught:
        solvers.group_requests(source, "1x4", **asked)
    assert caught.value.violations[0].code == code


def test_counts_are_refused(tmp_path: Any) -> None:
    """They do not say what one request uses."""
    with pytest.raises(InputError):
        solvers.group_requests(LoadCounts.of(np.ones((1, 4))), "1x2")  # type: ignore[arg-type]


def test_second_halves_are_at_home_where_requests_go() -> None:
    """Sequences in turns, over several batches: the later tokens of those that are asked for, with their GPUs."""
    rng = np.random.default_rng(0)
    sequence = rng.integers(5, 12, 200)
    ids = rng.integers(0, 8, (200, 2, 1)).astype(np.int16)
    trace = Trace.of(ids, num_experts=8, seq_id=sequence)
    requests = signatures_of(trace).of(np.arange(7) % 3 > 0)
    worker = np.arange(len(requests.ids)) % 3
    expected = []
    for row, each in enumerate(sequence):
        before, total = int((sequence[:row] == each).sum()), int((sequence == each).sum())
        if each in requests.ids and before >= (total + 1) // 2:
            expected.append((ids[row].tolist(), each, worker[requests.ids == each][0]))
    told = [
        (batch.topk_ids[n].tolist(), np.asarray(batch.seq_id)[n], np.asarray(batch.source_rank)[n])
        for batch in served(trace, requests, worker).batches(16)
        for n in range(len(batch))
    ]
    assert told == expected


def test_ways_are_timed_on_a_machine() -> None:
    """Where all that a request uses is on its node, a step takes less; the machine says how GPUs form nodes."""
    timed: dict[str, Any] = {"machine": "h200:2x1", "model": "deepseek-v2-lite", "tokens_per_gpu": 64}
    timed |= {"imbalance_weight": 0.0}
    found = solvers.group_requests(planted(2, 48, experts=64), restarts=1, **timed)
    rows = {row.name: row for row in found.rows}
    assert found.plan.gpus_per_node == (1, 1)
    assert rows["joint"].step_ms is not None
    assert rows["neither"].step_ms is not None
    assert 0 < rows["joint"].step_ms < rows["neither"].step_ms
    assert "the fastest as well" in found.sentence


@pytest.mark.parametrize(
    ("asked", "pointers"),
    [
        ({}, {"/topology"}),
        ({"topology": "1x2", "machine": "h200:1x2"}, {"/topology", "/model"}),
        ({"topology": "1x2", "phase": "decode"}, {"/phase"}),
        ({"machine": "abacus:1x2", "model": "deepseek-v2-lite"}, {"/machine"}),
    ],
)
def test_what_is_timed_is_said_once(asked: dict[str, Any], pointers: set[str]) -> None:
    """Both of machine and model, and the machine or a topology."""
    with pytest.raises(InputError) as caught:
        solvers.GroupRequest(**asked)
    assert {violation.pointer for violation in caught.value.violations} == pointers

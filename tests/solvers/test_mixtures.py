"""Plans for several domains: weights, what is minimised, the held-out matrix."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.report.mixture import mixture_text
from placement import Constraints, Objective, Problem, Survive, Topology, score
from placement.loads.deviations import source_deviations
from solvers import Limits, MixtureRequest, mixture
from solvers.mixtures.bound import mixture_bound
from solvers.mixtures.dividing import partitions, shared_out
from solvers.mixtures.domains import domains_of
from solvers.mixtures.judging import replay_groups
from solvers.mixtures.search import target_of
from solvers.mixtures.weighing import mixed
from tests.builders.traces import profile_of
from traces import InputError, Trace
from traces.synthetic import Synthetic, generate

EXPERTS = 8


def domain(hot: int, seed: int, tokens: int = 1200) -> Trace:
    """Return a trace whose tokens prefer experts 0 and `hot`, and hardly use the others of 1 to 3.

    What is even for one such domain puts expert 0 beside one that is hot in another.
    """
    rng = np.random.default_rng(seed)
    weight = np.ones(EXPERTS)
    weight[1:4] = 0.1
    weight[[0, hot]] = 6.0
    ids = np.stack([rng.choice(EXPERTS, (2, 1), p=weight / weight.sum()) for _ in range(tokens)])
    return Trace.of(ids.astype(np.int16), num_experts=EXPERTS, seq_id=np.arange(tokens) // 40)


TRACES = {"a": domain(1, 1), "b": domain(2, 2), "c": domain(3, 3)}
BY_LOAD = Objective(execution="dispatch", dedup="none", imbalance_weight=30.0, traffic_weight=0.0)


def test_a_mixture_is_what_repeated_traces_are() -> None:
    """Weights of 2 to 1, and traces of 1 to 2: the loads and pairs of one taken four times and the other once."""
    a, b = profile_of(TRACES["a"]), profile_of(domain(2, 2, tokens=2400))
    found = mixed([a, b], np.array([2 / 3, 1 / 3]))
    assert np.allclose(found.load / found.load.sum(), (4 * a.load + b.load) / (4 * a.load + b.load).sum())
    assert a.affinity is not None
    assert b.affinity is not None
    assert found.affinity is not None
    assert np.allclose(found.affinity / found.affinity.sum(), (4 * a.affinity + b.affinity) / (6 * a.affinity.sum()))
    assert found.sample is not None
    sample = np.concatenate([found.sample.topk_ids[:, 0, 0]])
    assert (sample == 1).mean() > (sample == 2).mean()


def test_the_spread_of_sources_is_that_between_and_within_them() -> None:
    """The squares add up to the variance between the sources and the mean of those of their own shares."""
    profiles = [profile_of(TRACES[name]) for name in "abc"]
    whole = mixed(profiles, np.full(3, 1 / 3))
    found = source_deviations(whole)
    assert found is not None
    shares = np.stack([profile.load / profile.load.sum(axis=1, keepdims=True) for profile in profiles])
    between = shares.var(axis=0, ddof=1)
    within = np.zeros_like(between)
    for profile in profiles:
        load = profile.sequence_load
        assert load is not None
        load = load[load.any(axis=(1, 2))]
        count = load.sum(axis=2, keepdims=True)
        total = count.sum(axis=0)
        apart = (load - count * (load.sum(axis=0) / total)) / total
        within += (apart**2).sum(axis=0) * len(load) / (len(load) - 1) / 3
    assert np.allclose((found**2).sum(axis=2), between + within, rtol=0.01)


def test_costs_of_groups_are_the_score_without_the_spread() -> None:
    """On all tokens of a trace, for each way that tokens travel."""
    profile = profile_of(TRACES["a"])
    for objective in (BY_LOAD, Objective(), Objective(execution="dispatch", dedup="gpu")):
        constraints = Constraints(load_cap=1.1)
        problem = Problem(profile, Topology.parse("2x2"), 3, replace(objective, load_spread_weight=0.0), constraints)
        table = np.array([[0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1]] * 2)
        [groups] = replay_groups(problem, [problem.plan(table)], TRACES["a"])
        cost = score(problem, table)
        loads = sum(cost[name].cost for name in ("imbalance", "load_excess"))
        assert groups.cost()[0] == pytest.approx(cost["traffic"].cost + loads, rel=1e-9)


def test_what_is_hedged_adds_up_by_squares() -> None:
    """The imbalance of a layer and the noise of its loads, each with its weight; without noise it is the cost."""
    objective = replace(BY_LOAD, traffic_weight=2.0, load_spread_weight=50.0)
    problem = Problem(profile_of(TRACES["a"]), Topology.parse("1x4"), 2, objective)
    [groups] = replay_groups(problem, [problem.plan(np.array([[0, 1, 2, 3, 4, 5, 6, 7]] * 2))], TRACES["a"])
    load = groups.load.sum(axis=0)
    above = load.max(axis=1) / load.mean(axis=1) - 1
    expected = 2 * groups.traffic + np.sqrt((30 * above) ** 2 + (50 * groups.spread()) ** 2).mean()
    assert groups.hedged() == pytest.approx(expected)
    same = replace(groups, problem=replace(problem, objective=replace(problem.objective, load_spread_weight=0.0)))
    assert same.hedged() == pytest.approx(same.cost()[0])


def test_what_is_minimised() -> None:
    """The worst, the mean, and the least cost that enough weight stays below."""
    costs, weights = np.array([[1.0, 5.0, 3.0], [2.0, 2.0, 9.0]]), np.array([0.5, 0.1, 0.4])
    ask = MixtureRequest(topology="1x2")
    assert target_of(costs, weights, ask).tolist() == [5.0, 9.0]
    assert target_of(costs, weights, replace(ask, over="weighted")).tolist() == pytest.approx([2.2, 4.8])
    assert target_of(costs, weights, replace(ask, over="quantile", quantile=0.9)).tolist() == [3.0, 9.0]


def test_the_plan_for_the_worst_beats_those_for_one_domain() -> None:
    """On held-out tokens, beyond what they leave open; every plan is judged on every domain, with an interval."""
    found = mixture(TRACES, "1x4", objective=BY_LOAD, limits=Limits(work=4000), solver="annealing", rounds=2, workers=1)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["mixture", "pooled", "only a", "only b", "only c"]
    for name in "abc":
        assert rows[f"only {name}"].above_low > 0
    for row in found.rows:
        assert row.target == pytest.approx(max(cell.cost for cell in row.cells.values()))
        assert all(cell.low <= cell.high for cell in row.cells.values())
    assert len(found.rounds) == 2
    assert found.as_dict()["plans"]["mixture"]["above_mixture"] == [0.0, 0.0]
    assert (found.found_by == "round") == ("in round" in mixture_text(found.as_dict()))


@pytest.mark.parametrize("objective", [BY_LOAD, Objective(execution="dispatch", dedup="gpu", imbalance_weight=2.0)])
@pytest.mark.parametrize("slots", [2, 3])
def test_no_plan_beats_the_bound(objective: Objective, slots: int) -> None:
    """Of all plans of four experts, under each thing that is minimised."""
    rng = np.random.default_rng(slots)
    drawn = [rng.choice(4, (60, 1, 1), p=rng.dirichlet(np.ones(4))).astype(np.int16) for _ in range(3)]
    profiles = [profile_of(Trace.of(ids, num_experts=4)) for ids in drawn]
    weights = np.array([0.5, 0.3, 0.2])
    problem = Problem(profiles[0], Topology.parse("1x2"), slots, objective, Constraints(load_cap=1.1))
    sets = [each for size in range(1, slots + 1) for each in combinations(range(4), size)]
    tables = [
        [*a, *[-1] * (slots - len(a)), *b, *[-1] * (slots - len(b))]
        for a, b in product(sets, sets)
        if {*a, *b} == {*range(4)}
    ]
    for asked in ({"over": "worst"}, {"over": "weighted"}, {"over": "quantile", "quantile": 0.7}):
        request = MixtureRequest(topology="1x2", slots_per_gpu=slots, **asked)
        found = [
            mixture_bound(problem, problem.plan(np.array([table], np.int32)), profiles, request, weights)
            for table in tables
        ]
        assert min(each.cost for each in found) >= found[0].bound - 1e-9
        assert found[0].bound > 0 or slots > 2


def test_what_a_quantile_gives_up_is_not_planned_for() -> None:
    """Half of the traffic is served best by a plan for it alone: no plan beside it is better, on the tokens to fit."""
    asked: dict[str, Any] = {"objective": BY_LOAD, "limits": Limits(work=5_000), "rounds": 1, "solver": "load_balance"}
    found = mixture({name: TRACES[name] for name in "ab"}, "1x4", over="quantile", quantile=0.5, **asked)
    least = {row.name: min(cell.fit for cell in row.cells.values()) for row in found.rows}
    assert least["mixture"] <= min(least.values()) + 1e-9
    assert any(f"`{found.found_by}`" in note for note in found.notes)
    assert found.found_by.startswith("only ")
    assert "in round" not in mixture_text(found.as_dict())


def test_a_domain_is_read_once_for_all_plans() -> None:
    """Each part of each domain: once to profile it, once per round, and once for all other plans together."""
    read: dict[str, int] = {}

    def counted(name: str, trace: Trace) -> Trace:
        def again(most: int) -> Any:
            read[name] = read.get(name, 0) + 1
            return trace.read(most)

        return replace(trace, read=again)

    sources = {name: counted(name, TRACES[name]) for name in "ab"}
    domains_of(sources, None, 1)
    before = dict(read)
    read.clear()
    asked: dict[str, Any] = {"objective": BY_LOAD, "rounds": 2, "solver": "contiguous", "workers": 1}
    found = mixture(sources, "1x4", **asked)
    assert {name: count - before[name] for name, count in read.items()} == dict.fromkeys("ab", len(found.rounds) + 2)
    costs = {row.name: [cell.fit for cell in row.cells.values()] for row in found.rows}
    for row in found.rows:
        for name, fit in zip("ab", costs[row.name], strict=True):
            part = domains_of(TRACES, None, 1)["abc".index(name)].fit
            assert float(replay_groups(found.problem, [row.plan], part)[0].cost()[0]) == pytest.approx(fit)


def test_a_trace_given_twice_is_refused(tmp_path: Path) -> None:
    """It would count twice in the weights, in the pooled plan and in the time; a copy in another file is the same."""
    with pytest.raises(InputError) as caught:
        domains_of({"a": TRACES["a"], "b": TRACES["b"], "again": domain(1, 1)}, None, 1)
    assert [(each.code, each.pointer) for each in caught.value.violations] == [("trace_twice", "/domains/again")]
    ids, sequences = np.arange(1024).reshape(512, 1, 2) % 8, np.arange(512) // 8
    for name, save in (("plain", np.savez), ("packed", np.savez_compressed)):
        save(tmp_path / f"{name}.npz", topk_ids=ids, seq_id=sequences, num_experts=np.array(8), layer_ids=np.arange(1))
    with pytest.raises(InputError, match="holds the same tokens as plain"):
        domains_of([tmp_path / "plain.npz", tmp_path / "packed.npz"], None, 1)


def test_searches_share_a_time_by_the_domains_there_are() -> None:
    """Those that a single trace tells, not one for the trace; a limit that keeps within it stays."""
    ids = np.arange(256, dtype=np.int16)[:, None, None] % 4
    trace = Trace.of(ids, num_experts=4, seq_id=np.arange(256) // 8, data_source=np.arange(256) // 64)
    asked: dict[str, Any] = {"objective": BY_LOAD, "rounds": 1, "solver": "contiguous", "workers": 1}
    found = mixture(trace, "1x2", searching_s=3.0, **asked)
    assert found.request.limits.time_s == pytest.approx(3.0 / (1 + 4 + 1))
    assert found.notes[0] == "6 searches share 3 s: each has 0.5 s."
    assert found.request.within(3.0, 4) is found.request


def test_sources_of_one_trace_are_domains() -> None:
    """By the column data_source, in its order; a trace without it is refused, and one of too many."""
    ids = np.zeros((256, 1, 1), np.int16)
    ids[:, 0, 0] = np.arange(256) % 4
    columns: dict[str, Any] = {"seq_id": np.arange(256) // 8, "data_source": np.repeat([7, 3], 128)}
    found = domains_of(Trace.of(ids, num_experts=4, **columns), None, 1)
    assert [each.name for each in found] == ["source 3", "source 7"]
    assert [each.profile.tokens for each in found] == [64, 64]
    with pytest.raises(InputError) as caught:
        domains_of(Trace.of(ids, num_experts=4), None, 1)
    assert caught.value.violations[0].code == "no_sources"
    with pytest.raises(InputError) as caught:
        domains_of(Trace.of(ids, num_experts=4, data_source=np.arange(256)), None, 1)
    assert caught.value.violations[0].code == "too_many_sources"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"over": "quantile"}, "without_effect"),
        ({"quantile": 0.5}, "without_effect"),
        ({"weights": (1.0, -1.0, 1.0)}, "weights_range"),
        ({"weights": (1.0, 1.0)}, "weights_number"),
        ({"constraints": Constraints(load_groups="windows")}, "without_effect"),
        ({"objective": Objective(execution="dispatch", activated_weight=1.0)}, "activated_unsupported"),
        ({"machine": "h200:1x4"}, "machine_and_model"),
        ({"phase": "decode"}, "without_effect"),
        ({"pools": True}, "without_effect"),
        (
            {
                "pools": True,
                "machine": "h200:1x4",
                "model": "deepseek-v3",
                "constraints": Constraints(survive=Survive.parse("gpus=1")),
            },
            "pools_beside",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], code: str) -> None:
    """Each refusal has its code."""
    with pytest.raises(InputError) as caught:
        mixture(TRACES, "1x4", **asked)
    assert caught.value.violations[0].code == code


def test_times_are_told_where_machine_and_model_are_known() -> None:
    """Milliseconds of every plan and domain; what is minimised is of the worst one."""
    sizes = Synthetic(num_layers=2, num_experts=64, top_k=6, num_tokens=600)
    sources = {name: generate(replace(sizes, seed=seed)) for seed, name in enumerate("ab")}
    known = {"machine": "h200:1x4", "model": "deepseek-v2-lite", "tokens_per_gpu": 64, "engine": "sglang"}
    asked: dict[str, Any] = {"solver": "contiguous", "rounds": 1, "workers": 1} | known
    found = mixture(sources, "1x4", **asked)
    for row in found.rows:
        times = [cell.step_ms for cell in row.cells.values()]
        assert all(time is not None and time > 0 for time in times)
        assert row.step_ms == max(time or 0.0 for time in times)


def test_domains_are_divided_in_all_ways() -> None:
    """All partitions but the one without pools (Bell numbers, less one); many domains are on their own."""
    assert [len(list(partitions(count))) for count in (2, 3, 4)] == [1, 4, 14]
    assert list(partitions(6)) == [((0,), (1,), (2,), (3,), (4,), (5,))]


def test_gpus_are_shared_out_by_weight() -> None:
    """Whole nodes where there are enough of them, every pool something, nothing left over."""
    four = np.repeat(np.arange(4), 2)
    assert shared_out(np.array([0.7, 0.3]), four) == [(0, 1, 2, 3, 4, 5), (6, 7)]
    assert shared_out(np.array([0.5, 0.3, 0.2]), np.zeros(4, np.int64)) == [(0, 1), (2,), (3,)]
    assert shared_out(np.full(3, 1 / 3), np.zeros(2, np.int64)) is None


def test_pools_are_weighed_in_time() -> None:
    """The slowest pool counts, each for its domains' share of the tokens, with an interval around what they save."""
    sizes = Synthetic(num_layers=2, num_experts=64, top_k=6, num_tokens=1200, tokens_per_sequence=32)
    sources = {name: generate(replace(sizes, seed=seed)) for seed, name in enumerate("ab")}
    timed: dict[str, Any] = {"machine": "h200:1x4", "model": "deepseek-v2-lite", "tokens_per_gpu": 64}
    asked = timed | {"solver": "load_balance", "rounds": 1, "limits": Limits(work=500), "weights": (1.0, 3.0)}
    pools = mixture(sources, "1x4", engine="sglang", slots_per_gpu=17, pools=True, **asked).pools
    assert pools is not None
    assert [(pool.domains, len(pool.gpus)) for pool in pools.pools] == [((0,), 1), ((1,), 3)]
    assert [pool.plan.slots_per_gpu for pool in pools.pools] == [64, 23]
    first, second = pools.pools
    assert first.load_ms == pytest.approx(first.step_ms * 0.25 * 4)
    assert pools.apart_ms == pytest.approx(max(first.load_ms, second.step_ms * 0.75 * 4 / 3))
    assert pools.together_ms is not None
    assert pools.saved is not None
    assert pools.saved == pytest.approx(1 - max(first.load_ms, second.load_ms) / pools.together_ms)
    assert pools.low is not None
    assert pools.high is not None
    assert pools.low <= pools.saved <= pools.high
    assert pools.as_dict(["a", "b"])["pools"][1]["domains"] == ["b"]

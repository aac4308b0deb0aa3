"""Load caps that hold for a quantile: variances over windows and sequences, the cost, and what a plan is told."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Objective, Problem, Topology, score
from placement.cost.feasibility import load_cap_misses
from placement.cost.shares import expected_gpu_load, guarded_gpu_load
from placement.loads.deviations import count_groups, sequence_deviations, window_deviations
from placement.plan.plan import replicas_on_gpu
from solvers import Limits, solve
from solvers.methods.annealing.tables.crossover import Pool
from tests.builders.problems import problem_of
from tests.builders.traces import profile_of
from traces import Profile, Trace

LAYERS, EXPERTS, GPUS = 3, 8, 4
Z = NormalDist().inv_cdf(0.9)


def bursty(seed: int, sequences: int = 30, length: int = 20, experts: int = EXPERTS) -> Trace:
    """Sequences of unequal length that keep to a few experts of their own."""
    rng = np.random.default_rng(seed)
    seq_id = np.repeat(np.arange(sequences), rng.integers(1, 2 * length, sequences))
    likes = rng.integers(0, experts, (sequences, LAYERS, 3))
    ids = likes[seq_id[:, None], np.arange(LAYERS), rng.integers(0, 3, (len(seq_id), LAYERS))]
    return Trace.of(ids[:, :, None], num_experts=experts, seq_id=seq_id)


def problem(trace: Trace, *, speed: Any = None, **constraints: Any) -> Problem:
    """Two experts on each of four GPUs, three with replicas."""
    return problem_of(
        profile_of(trace, window_tokens=16),
        Topology.of((GPUS,), speed=speed),
        3,
        constraints=Constraints(**constraints),
    )


def table(rng: np.random.Generator) -> Any:
    """Every expert, and a replica of four of them, on a GPU that has none yet."""
    rows = [np.r_[rng.permutation(EXPERTS), np.full(4, -1)].reshape(3, GPUS).T.ravel() for _ in range(LAYERS)]
    for row in rows:
        for slot in np.flatnonzero(row < 0):
            here = row[slot // 3 * 3 : slot // 3 * 3 + 3]
            row[slot] = rng.choice(np.setdiff1d(np.arange(EXPERTS), here))
    return np.stack(rows).astype(np.int32)


def bucket_loads(profile: Profile) -> Any:
    """Return the loads of the buckets that hold tokens, (W, L, E)."""
    assert profile.sequence_load is not None
    return profile.sequence_load[profile.sequence_load.any(axis=(1, 2))]


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_variance_over_sequences_is_that_of_a_ratio(seed: int) -> None:
    """Any set of experts has the textbook variance of a ratio of two sums over buckets of unequal size."""
    rng = np.random.default_rng(seed)
    profile = Profile.of(bursty(seed), workers=1)
    deviations = sequence_deviations(profile)
    assert deviations is not None
    share_on_gpu = rng.random(EXPERTS)
    for layer, load in enumerate(bucket_loads(profile).transpose(1, 0, 2)):
        y, n, buckets = load @ share_on_gpu, load.sum(axis=1), len(load)
        residual = y - y.sum() / n.sum() * n
        expected = buckets * np.var(residual, ddof=1) / n.sum() ** 2
        assert ((share_on_gpu @ deviations[layer]) ** 2).sum() == pytest.approx(expected)


def test_standard_error_over_sequences_is_how_much_a_new_trace_differs() -> None:
    """Over 300 traces of the same source: root mean square deviation from the source's shares, within 10 %."""
    rng = np.random.default_rng(0)
    likes = rng.integers(0, EXPERTS, (400, LAYERS, 3))

    def draw() -> Trace:
        kind = rng.integers(0, 400, 120)
        kind = np.repeat(kind, rng.integers(1, 30, 120))
        new = np.r_[True, np.diff(kind) != 0].cumsum()
        ids = likes[kind[:, None], np.arange(LAYERS), rng.integers(0, 3, (len(kind), LAYERS))]
        return Trace.of(ids[:, :, None], num_experts=EXPERTS, seq_id=new + int(rng.integers(1 << 40)))

    source = np.stack([np.bincount(likes[:, layer].ravel(), minlength=EXPERTS) for layer in range(LAYERS)])
    half = np.arange(EXPERTS) < 4
    truth = source[:, half].sum(axis=1) / source.sum(axis=1)
    errors, predicted = [], []
    for _ in range(300):
        profile = Profile.of(draw(), workers=1)
        errors.append(profile.load[:, half].sum(axis=1) / profile.load.sum(axis=1) - truth)
        deviations = sequence_deviations(profile)
        assert deviations is not None
        predicted.append((deviations[:, half].sum(axis=1) ** 2).sum(axis=1))
    actual = np.mean(np.square(errors))
    assert np.mean(predicted) / actual == pytest.approx(1.0, abs=0.2)


def test_order_within_the_trace_does_not_matter_for_sequences() -> None:
    """Shuffled tokens look alike in all windows; their sequences still differ."""
    trace = bursty(3)
    (batch,) = trace.batches()
    order = np.random.default_rng(0).permutation(len(batch))
    assert batch.seq_id is not None
    mixed = Trace.of(batch.topk_ids[order], num_experts=EXPERTS, seq_id=batch.seq_id[order])
    before, after = (sequence_deviations(Profile.of(part, workers=1)) for part in (trace, mixed))
    assert before is not None
    assert after is not None
    assert np.allclose(before, after)


def test_no_deviations_without_two_groups() -> None:
    """One window or one sequence says nothing about how loads vary."""
    ids = np.arange(12).reshape(6, 2, 1) % 3
    profile = Profile.of(Trace.of(ids, num_experts=3, seq_id=np.full(6, 5)), workers=1)
    assert [count_groups(profile, name) for name in ("windows", "sequences")] == [1, 1]
    assert window_deviations(profile) is None
    assert sequence_deviations(profile) is None


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), groups=st.sampled_from([None, "windows", "sequences"]), speeds=st.booleans())
def test_excess_is_of_the_quantile(seed: int, groups: Any, speeds: bool) -> None:
    """Bucket by bucket, GPU by GPU: the excess is what mean plus z standard errors is above the cap."""
    speed = [1.0, 2.0, 1.0, 0.5] if speeds else None
    given_problem = problem(bursty(seed), speed=speed, load_cap=1.1, load_quantile=0.9, load_groups=groups)
    plan = table(np.random.default_rng(seed))
    replicas = replicas_on_gpu(plan, EXPERTS, GPUS)
    share = replicas / replicas.sum(axis=2, keepdims=True) / given_problem.topology.fair_share
    profile = given_problem.profile
    excess = 0.0
    for layer in range(LAYERS):
        for gpu in range(GPUS):
            own = share[layer, :, gpu]
            if groups == "windows":
                assert profile.windows is not None
                load, tokens = profile.windows.load[:, layer], profile.windows.tokens
                relative = load @ own / load.sum(axis=1)
                mean = np.average(relative, weights=tokens)
                variance = np.average((relative - mean) ** 2, weights=tokens) / (len(tokens) - 1)
            else:
                load = bucket_loads(profile)[:, layer]
                y, n = load @ own, load.sum(axis=1)
                mean = y.sum() / n.sum()
                variance = len(n) * np.var(y - mean * n, ddof=1) / n.sum() ** 2
            excess += max(0.0, mean + Z * variance**0.5 - 1.1) / LAYERS
    terms = {term.name: term for term in score(given_problem, plan).terms}
    assert terms["load_excess"].value == pytest.approx(excess)
    assert terms["load_spread"].weight == 0


def test_half_is_the_expectation() -> None:
    """The 0.5 quantile is the cap on expected loads; the soft term for the spread is left out."""
    plan = table(np.random.default_rng(1))
    half = problem(bursty(1), load_cap=1.05, load_quantile=0.5)
    plain = Problem(half.profile, half.topology, 3, Objective(load_spread_weight=0.0), Constraints(load_cap=1.05))
    assert score(half, plan).total == score(plain, plan).total
    replicas = replicas_on_gpu(plan, EXPERTS, GPUS)
    assert np.array_equal(guarded_gpu_load(half, replicas), expected_gpu_load(half, replicas))


def test_groups_by_default() -> None:
    """Sequences where a quantile is asked for and they are known; windows as before otherwise."""
    trace = bursty(2)
    (batch,) = trace.batches()
    nameless = Trace.of(batch.topk_ids, num_experts=EXPERTS)
    assert problem(trace, load_cap=1.2).load_groups == "windows"
    assert problem(trace, load_cap=1.2, load_quantile=0.9).load_groups == "sequences"
    assert problem(nameless, load_cap=1.2, load_quantile=0.9).load_groups == "windows"


def test_a_cap_that_holds_for_the_mean_only_is_missed() -> None:
    """The plan is told that the quantile is above the cap, layer by layer."""
    plan = table(np.random.default_rng(4))
    trace = bursty(4)
    replicas = replicas_on_gpu(plan, EXPERTS, GPUS)
    cap = float(expected_gpu_load(problem(trace), replicas).max()) + 1e-6
    assert load_cap_misses(problem(trace, load_cap=cap), plan) == []
    robust = problem(trace, load_cap=cap, load_quantile=0.9)
    misses = load_cap_misses(robust, plan)
    above = (guarded_gpu_load(robust, replicas).max(axis=1) > cap).sum()
    assert len(misses) == above > 0
    assert all("0.9 quantile of max/mean" in text for text in misses)


def test_annealing_keeps_a_robust_cap_that_can_be_kept() -> None:
    """The plan for the quantile keeps it; the plan for the mean does not, and crosses less."""
    trace = bursty(5, sequences=200, experts=16)
    profile, topology = Profile.of(trace, workers=1, window_tokens=16), Topology.of((2,))
    free = Problem(
        profile, topology, objective=Objective(load_spread_weight=0.0), constraints=Constraints(load_cap=1.1)
    )
    robust = Problem(profile, topology, constraints=Constraints(load_cap=1.1, load_quantile=0.9))
    limits = Limits(work=300_000)
    loose, kept = (solve(given_problem, "annealing", limits=limits, workers=1) for given_problem in (free, robust))
    assert kept.plan.termination is not None
    assert kept.plan.termination.reason == "feasible"
    assert load_cap_misses(robust, loose.plan.physical_to_logical_map) != []
    traffic = [found.score.terms[0].value for found in (loose, kept)]
    assert traffic[0] < traffic[1]


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_best_of_a_pool_is_the_best_of_all_combinations(seed: int) -> None:
    """Crossover prices the quantile exactly: brute force over the layers of three plans finds nothing better."""
    rng = np.random.default_rng(seed)
    # Speeds differ, so GPUs keep their names and a combination is a choice per layer.
    made = problem(bursty(seed), speed=[1.0, 1.0, 1.0, 1.1], load_cap=1.2, load_quantile=0.9)
    plans = [table(rng) for _ in range(3)]
    pool = Pool(made)
    for plan in plans:
        pool.add(plan)
    every = np.stack(np.meshgrid(*[range(3)] * LAYERS), axis=-1).reshape(-1, LAYERS)
    least = min(score(made, np.stack([plans[p][layer] for layer, p in enumerate(way)])).total for way in every)
    assert score(made, pool.best()).total == pytest.approx(least)

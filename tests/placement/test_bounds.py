"""The instant lower bound never exceeds the best of all plans."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Problem, Topology, lower_bound, score
from placement.cost.bounds import most_kept
from tests.builders.problems import dispatch, problem_of
from traces import Profile, Trace


def chained(seed: int, topology: Topology, experts: int, slots: int, layers: int = 2) -> Problem:
    """Problem over random tokens with some affinity."""
    rng = np.random.default_rng(seed)
    ids = (rng.integers(experts, size=(30, 1, 1)) + rng.integers(0, 2, (30, layers, 1))) % experts
    trace = Trace.of(ids.astype(np.int16), num_experts=experts)
    return problem_of(trace, topology, slots)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), text=st.sampled_from(["1x2", "2x1", "2x2"]))
def test_below_the_optimum(seed: int, text: str) -> None:
    """For four experts, with and without node costs, over all pairs of arrangements."""
    topology = Topology.parse(text)
    problem = chained(seed, topology, 4, 4 // topology.num_gpus)
    rows = sorted(set(permutations(range(4))))
    first = [row for row in rows if row[0] == 0] if text != "2x2" else rows[:8]
    best = min(score(problem, np.array(pair)).total for pair in product(first, rows))
    bound = lower_bound(problem)
    assert 0 <= bound <= best + 1e-12


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), text=st.sampled_from(["1x2", "2x1"]))
def test_below_the_optimum_with_replicas(seed: int, text: str) -> None:
    """For three experts in four slots, over all maps with a replica or an empty slot."""
    problem = chained(seed, Topology.parse(text), 3, 2)
    rows = [row for row in product(range(-1, 3), repeat=4) if set(row) >= {0, 1, 2}]
    best = min(score(problem, np.array(pair)).total for pair in product(rows, rows))
    bound = lower_bound(problem)
    assert 0 <= bound <= best + 1e-12


def test_tight_for_one_expert_per_gpu() -> None:
    """Where the row bound is attained, bound and optimum are equal."""
    ids = np.repeat(np.arange(4), 5)[:, None, None].repeat(2, axis=1)
    ids[:3, 1] = 1
    problem = Problem(Profile.of(Trace.of(ids, num_experts=4), workers=1), Topology.parse("1x4"))
    best = min(score(problem, np.array([[0, 1, 2, 3], row])).total for row in permutations(range(4)))
    bound = lower_bound(problem)
    assert bound <= best
    assert bound == pytest.approx(3 / 20)


def test_known_cases() -> None:
    """One GPU costs nothing; dispatch needs as many GPUs as a token's experts fill, one of which may be its home."""
    assert lower_bound(chained(0, Topology.parse("1x1"), 4, 4)) == 0
    every = Profile.of(Trace.of(np.tile(np.arange(4), (8, 2, 1)), num_experts=4), workers=1)
    by_gpu, by_expert = (
        dispatch(),
        dispatch(dedup="none"),
    )
    assert lower_bound(Problem(every, Topology.parse("1x2"), objective=by_gpu)) == pytest.approx(1.0)
    assert lower_bound(Problem(every, Topology.parse("1x2"), objective=by_expert)) == pytest.approx(0.5)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), experts=st.integers(1, 70), share=st.floats(0, 1), zeros=st.floats(0, 1))
def test_what_is_kept_is_the_largest_entries(seed: int, experts: int, share: float, zeros: float) -> None:
    """Of every row and column, for any room and with many ties, as sorting finds them."""
    rng = np.random.default_rng(seed)
    affinity = rng.integers(0, 6, (2, experts, experts)) * (rng.random((2, experts, experts)) > zeros)
    room = max(1, round(share * experts))
    rows, columns = (np.sort(affinity, axis=axis) for axis in (2, 1))
    expected = np.minimum(rows[:, :, -room:].sum(axis=(1, 2)), columns[:, -room:].sum(axis=(1, 2)))
    assert most_kept(affinity, room).tolist() == expected.tolist()

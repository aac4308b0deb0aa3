"""No plan and no split has a smaller largest load than the bound says."""

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.loads.least import least_excess, max_load_bound
from placement.loads.split import best_split_max_load


def of(load: Sequence[float], capacity: Sequence[int], speed: Sequence[float]) -> float:
    """Return the bound of one layer."""
    share, fair = np.array([load]) / sum(load), np.array(speed) / sum(speed)
    return float(max_load_bound(share, np.array(capacity), fair)[0])


@settings(max_examples=12, deadline=None)
@given(
    load=st.lists(st.integers(0, 20), min_size=3, max_size=4).filter(any),
    speed=st.sampled_from([[1.0, 1.0], [1.0, 3.0], [4.0, 1.0]]),
    capacity=st.sampled_from([[2, 2], [3, 2], [1, 3]]),
)
def test_below_every_plan(load: list[int], speed: list[float], capacity: list[int]) -> None:
    """Over all maps with replicas and empty slots, with the best split of tokens over the replicas."""
    if sum(capacity) < len(load):
        capacity = [2, 2]
    places = [range(-1, len(load)) if slot < capacity[gpu] else (-1,) for gpu in range(2) for slot in range(3)]
    tables = {tuple(sorted(row[:3]) + sorted(row[3:])) for row in product(*places) if set(row) >= set(range(len(load)))}
    fair = np.array(speed) / sum(speed)
    shares = np.array([load], dtype=np.float64)
    best = min(float(best_split_max_load(shares, np.array([table]), fair)[0]) for table in tables)
    assert 1.0 <= of(load, capacity, speed) <= best * (1 + 1e-9)


def test_known_cases() -> None:
    """Each of the bounds where it is the largest, and attained."""
    assert of([1, 1, 1, 1], [2, 2], [1, 1]) == pytest.approx(1.0)
    assert of([6, 1, 1, 1], [2, 2], [1, 1]) == pytest.approx(2 * 7 / 9)  # the hottest, with the coldest beside it
    assert of([3, 3, 3, 0], [2, 2], [1, 1]) == pytest.approx(2 * 6 / 9)  # three hot ones on two GPUs
    assert of([24] + 6 * [1], 4 * [2], 4 * [1]) == pytest.approx(4 * 12 / 30)  # one spare slot halves the hottest
    assert of([1, 1, 1, 1], [1, 3], [9, 1]) == pytest.approx(0.75 / 0.1)  # the fast GPU has room for one only


@settings(max_examples=30, deadline=None)
@given(
    load=st.lists(st.integers(0, 20), min_size=6, max_size=6).filter(any),
    gpus=st.sampled_from([2, 3]),
    cap=st.sampled_from([1.0, 1.1, 1.5]),
    fast=st.booleans(),
)
def test_excess_below_every_plan(load: list[int], gpus: int, cap: float, fast: bool) -> None:
    """Over all arrangements of single replicas, for equal GPUs and with a fast one."""
    speed = np.where(np.arange(gpus) == 0, 2.0 if fast else 1.0, 1.0)
    fair, share = speed / speed.sum(), np.array(load) / sum(load)
    best = np.inf
    for place in set(permutations(np.repeat(np.arange(gpus), 6 // gpus).tolist())):
        relative = np.bincount(place, weights=share, minlength=gpus) / fair
        best = min(best, float(np.maximum(0.0, relative - cap).sum()))
    found = float(least_excess(share[None], np.full(gpus, 6 // gpus), fair, np.array([cap]))[0])
    assert found <= best + 1e-12
    assert found >= float(max_load_bound(share[None], np.full(gpus, 6 // gpus), fair)[0]) - cap - 1e-9


def test_excess_of_two_hot_experts() -> None:
    """Both are above the cap wherever they are, with the coldest beside them; one replica of each of them helps."""
    share = np.array([[0.4, 0.4, 0.1, 0.1, 0.0, 0.0]])
    alone = least_excess(share, np.full(3, 2), np.full(3, 1 / 3), np.array([1.1]))
    assert alone[0] == pytest.approx(2 * (3 * 0.4 - 1.1))
    assert least_excess(share, np.full(3, 3), np.full(3, 1 / 3), np.array([1.1]))[0] == 0.0

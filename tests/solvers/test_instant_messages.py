"""Instant bounds of copies against every placement of tiny layers."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.bounds.instant_messages import least_copies, most_at_home

EXPERTS, BLOCKS, ROOM = 4, 3, 2
HELD = [
    held
    for held in product([set(pair) for pair in combinations(range(EXPERTS), ROOM)], repeat=BLOCKS)
    if set.union(*held) == set(range(EXPERTS))
]


def copies_of(experts: set[int], home: int, held: tuple[set[int], ...], *, merged: bool) -> int:
    """Return the fewest copies of a token to other blocks, whatever replicas it uses."""
    away = experts - held[home]
    if not merged:
        return len(away)
    others = [block for number, block in enumerate(held) if number != home]
    return next(n for n in range(BLOCKS) for some in combinations(others, n) if away <= set().union(*some))


@pytest.mark.parametrize("merged", [True, False])
@given(st.lists(st.tuples(st.sets(st.integers(0, 3), max_size=3), st.integers(0, 2)), min_size=1, max_size=12))
@settings(max_examples=40)
def test_no_placement_sends_fewer_copies(merged: bool, tokens: list[tuple[set[int], int]]) -> None:
    """Every placement with replicas, and the replica that suits each token best: the bound is not above."""
    ids = np.full((len(tokens), 3), -1)
    for row, (experts, _) in enumerate(tokens):
        ids[row, : len(experts)] = sorted(experts)
    homes = np.array([home for _, home in tokens])
    least = min(sum(copies_of(*token, held, merged=merged) for token in tokens) for held in HELD)
    found = least_copies(ids, homes, EXPERTS, BLOCKS, ROOM, BLOCKS * ROOM - EXPERTS, merged=merged)
    assert found <= least + 1e-9


def test_further_replicas_bring_experts_home() -> None:
    """One replica serves its best home, each further one the best home that is left; blocks have so many slots."""
    called = np.array([[5.0, 4.0], [3.0, 3.0], [2.0, 1.0]])
    assert most_at_home(called, 2, 0) == 5 + 3 + 2
    assert most_at_home(called, 2, 1) == 5 + 3 + 2 + 4
    assert most_at_home(called, 1, 9) == 5 + 4


def test_what_must_be_sent_is_found() -> None:
    """Even choices of two blocks' experts: half of the choices leave their home, and so does every token."""
    ids = np.array([[0, 2], [0, 3], [1, 2], [1, 3]] * 2)
    homes = np.repeat([0, 1], 4)
    assert least_copies(ids, homes, 4, 2, 2, 0, merged=False) == 8
    assert least_copies(ids, homes, 4, 2, 2, 0, merged=True) >= 4

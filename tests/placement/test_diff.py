"""What moves from one plan to another, against counting by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import placement
from placement import Plan
from traces import InputError


def plan_of(table: Any, sizes: tuple[int, ...] = (2, 2), experts: int = 4, layers: tuple[int, ...] = (3, 7)) -> Plan:
    """Plan of a map with a row per layer."""
    return Plan.of(np.array(table), layer_ids=layers, num_experts=experts, gpus_per_node=sizes)


A = plan_of([[0, 1, 1, 2, 3, 0, 2, 3], [0, 1, 2, 3, 0, 1, 2, 3]])
# Layer 3: GPU 0 swaps its slots; GPU 1 gets 3 for 2, which only the other node has; GPU 3 gets 0 for 3, from GPU 2.
B = plan_of([[1, 0, 1, 3, 3, 0, 2, 0], [0, 1, 2, 3, 0, 1, 2, 3]])


def test_moves_by_hand() -> None:
    """Experts that a GPU did not hold are sent to it from the nearest that did; order inside a GPU costs nothing."""
    found = placement.diff(A, B, expert_bytes=1000)
    assert found.arrivals.tolist() == [[3, 0, 3, 2], [3, 3, 1, 2]]
    assert found.departures.tolist() == [[3, 2, 1], [3, 3, 3]]
    assert found.between_nodes == 1
    assert found.reordered.tolist() == [2, 0]
    assert found.moved_by_layer.tolist() == [2, 0]
    assert (found.moved, found.moved_bytes) == (2, 2000)
    assert placement.diff(A, B).moved_bytes is None


def test_a_plan_and_itself() -> None:
    """Nothing moves."""
    found = placement.diff(A, A, expert_bytes=5)
    assert (found.moved, found.moved_bytes, found.between_nodes, int(found.reordered.sum())) == (0, 0, 0, 0)
    assert len(found.departures) == 0


def test_more_slots_may_be_compared() -> None:
    """The slots per GPU may differ: only what a GPU did not hold is sent."""
    wide = plan_of([[0, 1, -1, 1, 2, 0, 3, 0, -1, 2, 3, -1], [0, 1, -1, 2, 3, -1, 0, 1, -1, 2, 3, -1]])
    found = placement.diff(A, wide)
    assert found.arrivals.tolist() == [[3, 0, 1, 0]]
    assert found.reordered.tolist() == [0, 0]


def test_text_and_frame() -> None:
    """Short, and a row per arrival."""
    found = placement.diff(A, B, expert_bytes=10**9)
    assert len(repr(found).splitlines()) <= 10
    assert "2 experts, in 1 of 2 layers" in repr(found)
    assert "2 GB" in found._repr_html_()
    frame = found.to_frame()
    assert list(frame.columns) == ["layer_id", "expert", "gpu", "from_gpu"]
    assert frame.expert.tolist() == [0, 3]
    assert found == placement.diff(A, B, expert_bytes=10**9)
    assert hash(found) == hash(placement.diff(A, B, expert_bytes=10**9))
    assert found != placement.diff(A, B)


def test_plans_of_other_sizes_are_refused() -> None:
    """Everything that differs, at once."""
    other = plan_of([[0, 1, 2, 0]], (4,), 3, (1,))
    with pytest.raises(InputError) as caught:
        placement.diff(A, other, expert_bytes=0)
    places = [item.pointer for item in caught.value.violations]
    assert places == ["/b/num_experts", "/b/gpus_per_node", "/b/layer_ids", "/expert_bytes"]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_moves_against_sets(seed: int) -> None:
    """For random plans: arrivals, departures and sources are those of plain sets."""
    rng = np.random.default_rng(seed)
    tables = [np.stack([_row(rng) for _ in range(2)]) for _ in range(2)]
    a, b = (plan_of(table) for table in tables)
    found = placement.diff(a, b)
    arrivals, far = [], 0
    for row, layer in enumerate((3, 7)):
        before = [{*gpu.tolist()} - {-1} for gpu in tables[0][row].reshape(4, -1)]
        after = [{*gpu.tolist()} - {-1} for gpu in tables[1][row].reshape(4, -1)]
        for expert in range(4):
            for gpu in range(4):
                if expert in after[gpu] - before[gpu]:
                    holders = [other for other in range(4) if expert in before[other]]
                    near = [other for other in holders if other // 2 == gpu // 2]
                    far += not near
                    arrivals.append([layer, expert, gpu, (near or holders)[0]])
        changed = (tables[0][row] != tables[1][row]) & (tables[1][row] >= 0)
        inside = sum(int(tables[1][row][slot]) in before[slot // 2] for slot in np.flatnonzero(changed))
        assert found.reordered[row] == inside
    assert found.arrivals.tolist() == arrivals
    assert found.between_nodes == far
    assert len(placement.diff(b, a).arrivals) == len(found.departures)


def _row(rng: np.random.Generator) -> Any:
    """Every expert once, the other slots anything."""
    row = rng.integers(-1, 4, 8)
    row[rng.permutation(8)[:4]] = rng.permutation(4)
    return row

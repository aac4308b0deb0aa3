"""What moves cost: whom experts are sent from, and links that are shared fairly, against hand calculations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Topology
from placement.moves.carry import machine_without
from placement.moves.cost import moves_between
from placement.moves.links import Links
from placement.time import Machine
from tests.builders.problems import random_table

NODES = np.array([0, 0, 1, 1])
LINKS = Links.of_machine(Machine.parse("h100:2x2"), checkpoint_gb_s=2.0)  # 450 GB/s inside, 50 GB/s across
GB = 10**9


def test_senders_are_near_and_take_turns() -> None:
    """An expert comes from its own node if it can, from the checkpoint if nobody holds it; senders share the work."""
    before = np.array([[0, 1, 0, 1, 2, 3, 2, 3]])
    after = np.array([[0, 1, 0, 2, 0, 1, 4, 3]])
    found = moves_between(before, after, 5, NODES, GB)
    assert found.arrivals.tolist() == [[0, 0, 2, 0], [0, 1, 2, 1], [0, 2, 1, 2], [0, 4, 3, -1]]
    assert (found.experts, found.bytes, found.between_nodes, found.from_checkpoint) == (4, 4 * GB, 3, 1)
    assert found.by_pair[0, 2] == found.by_pair[1, 2] == found.by_pair[2, 1] == 1
    assert moves_between(before, after, 5, NODES).transfer_s(LINKS) is None


@pytest.mark.parametrize(
    ("pairs", "seconds"),
    [
        ([(0, 1)], 1 / 450),
        ([(0, 2)], 1 / 50),
        ([(0, 2), (0, 3)], 2 / 50),  # one port sends both
        ([(0, 2), (1, 3)], 1 / 50),  # each has its own
        ([(0, 1), (0, 2)], 1 / 50),  # NVLink and network at once
        ([(0, 2), (0, 3), (1, 3)], 2 / 50),  # two out of GPU 0, two into GPU 3
        ([(-1, 0), (-1, 0), (-1, 3)], 1.0),
        ([], 0.0),
    ],
)
def test_ports_are_shared(pairs: list[tuple[int, int]], seconds: float) -> None:
    """Gigabytes over ports of 450 and 50 GB/s, and of 2 GB/s from the checkpoint."""
    source, gpu = np.array(pairs, np.int64).reshape(-1, 2).T
    assert LINKS.seconds(source, gpu, GB) == pytest.approx(seconds)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_no_faster_than_the_busiest_port(seed: int) -> None:
    """Sharing never beats the port with most to send, nor is it slower than one transfer after the other."""
    rng = np.random.default_rng(seed)
    before, after = (random_table(rng, 2, 8, 4, 3) for _ in range(2))
    links = Links.of(Topology.parse("2x2"))
    assert links is not None
    found = moves_between(before, after, 8, NODES, GB)
    near = NODES[:, None] == NODES[None, :]
    speeds = np.where(near, links.inside_gb_s[:, None], links.across_gb_s[:, None])
    alone = found.by_pair / speeds
    ports = [(alone * mask).sum(axis=axis).max() for mask in (near, ~near) for axis in (0, 1)]
    took = found.transfer_s(links)
    assert took is not None
    assert max(ports) - 1e-9 <= took <= alone.sum() + 1e-9
    assert Links.of(Machine.parse("h100:2x2").topology()) is None


def test_machine_without_a_node_has_the_uplinks_of_the_others() -> None:
    """A dead node takes its uplink along."""
    left = machine_without(Machine.parse("h100:1x2@25+h100:1x2@50+h100:1x2"), (0, 1))
    assert left.uplink_gb_s == (50, np.inf)
    assert left.network_gb_s.tolist() == [25, 25, 50, 50]

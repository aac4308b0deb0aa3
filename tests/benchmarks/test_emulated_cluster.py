"""The emulated cluster: what it is fitted to, how plans are compared, and that it says where it can't be made."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from placement.time import Links

LINKS = Links(node_of_gpu=np.array([0, 0, 1, 1]), rank_gb_s=np.full(4, 0.05), uplink_gb_s=np.full(2, 0.005))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("emulated_cluster")


def test_launch_and_efficiency_are_found_again(script: ModuleType) -> None:
    """Even exchanges of a cluster with known figures give these figures."""
    even = np.stack([size * (1 - np.eye(4)) for size in (1e5, 3e5, 1e6)])
    real = replace(LINKS, launch_ms=7.0, uplink_gb_s=LINKS.uplink_gb_s * 0.8)
    launch, efficiency = script.fitted(LINKS, even, real.ms(even / 1e9) / 1e3)
    assert (launch, efficiency) == pytest.approx((7.0, 0.8))


def test_only_pairs_that_differ_are_put_in_order(script: ModuleType) -> None:
    """Plans of another size or seed are not compared, and those within 5 % neither."""
    rows = {
        ("contiguous", 64, 0): (np.array([1.0]), np.array([1.1])),
        ("eplb", 64, 0): (np.array([2.0]), np.array([1.0])),
        ("ours", 64, 0): (np.array([1.01]), np.array([0.9])),
        ("ours", 128, 0): (np.array([9.0]), np.array([9.0])),
    }
    _, errors, right = script.compared(rows)
    assert errors.tolist() == pytest.approx([0.1, 0.5, 0.109, 0.0], abs=1e-3)
    assert sorted(right) == [False, True]


def test_says_why_there_can_be_no_cluster(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root nothing is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert script.why_not() == "Making network namespaces needs root."


def test_bytes_take_as_long_as_the_uplink_that_they_share(script: ModuleType) -> None:
    """400 kB over an uplink of 40 Mbit/s, where two ranks of a node send 200 kB each."""
    if (reason := script.why_not()) is not None:
        pytest.skip(reason)
    pytest.importorskip("torch")
    across = np.zeros((2, 4, 4))
    across[:, [0, 1], [2, 3]] = 200_000
    with script.cluster(2, 2, [400.0] * 4, [40.0] * 2) as made:
        seconds = script.run(made, across)[1]  # the first finds its way
    assert 0.06 < seconds < 0.4, "80 ms, less one burst of 8 ms, and some more beside other work"
    assert not any(Path("/run/netns", space).exists() for space in made.ranks)

"""Residency: slots by gain, settings from the part that is fitted, what is told, what is refused."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.residency import POLICIES, Tier
from solvers import Residency, ResidencyRequest, simulate_residency
from solvers.residency.allocation import allocate
from tests.builders.traces import load_counts
from traces import InputError, Trace
from traces.synthetic import Synthetic, generate

TRACE = generate(Synthetic(num_layers=3, num_experts=16, top_k=2, num_tokens=1536, skew=0.6, affinity=0.8))
QWEN = generate(Synthetic(num_layers=2, num_experts=128, top_k=8, num_tokens=512, skew=0.6))


@pytest.fixture(scope="module")
def found() -> Residency:
    """Return what is found with half of the experts resident, in steps of four tokens."""
    return simulate_residency(TRACE, resident=0.5, batch_tokens=4)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.integers(0, 13), st.integers(1, 2))
def test_slots_by_gain_are_the_best_shares(seed: int, total: int, unit: int) -> None:
    """No other way to share whole units gains more, on curves of any form; all slots are given out."""
    gain = np.random.default_rng(seed).integers(0, 9, (3, 4)).cumsum(axis=1).astype(float)
    room = allocate(gain, unit, total, 3 * unit)
    assert room.sum() == min(total, 9 * unit)
    shares = (share for share in product(range(4), repeat=3) if sum(share) <= total // unit)
    best = max(sum(gain[layer, size] for layer, size in enumerate(share)) for share in shares)
    assert sum(gain[layer, size // unit] for layer, size in enumerate(room.tolist())) >= best


def test_every_policy_has_a_row(found: Residency) -> None:
    """Belady moves the least; the best one is the fastest that an engine can follow; parts add up."""
    assert [each.name for each in found.policies] == list(POLICIES)
    assert found.slots == 24
    assert found.reference == "belady"
    for each in found.policies:
        assert each.transfers_per_step >= found["belady"].transfers_per_step
        assert each.hit_rate == pytest.approx(each.cache_hit_rate + each.prefetch_hit_rate)
        assert sum(each.moved.values()) == pytest.approx(each.transfers_per_step)
        waited_for = each.transfers_per_step - each.wasted_per_step
        assert waited_for - 1e-9 <= each.step <= each.transfers_per_step + 1e-9  # nothing else takes time
        assert sum(each.slots_per_layer) in (0, 24)
    practical = [each for each in found.policies if each.practical]
    assert found[found.best].step == min(each.step for each in practical)
    assert json.loads(json.dumps(found.as_dict()))["best"] == found.best


def test_the_experts_that_stay_are_told(found: Residency) -> None:
    """Those of `static`: every access to one of them is a hit, and no other."""
    done = simulate_residency(TRACE, resident=0.25, budget="equal")
    assert [len(experts) for experts in done.resident] == [4, 4, 4]
    held = TRACE.split(0.5)[1]
    ids = np.concatenate([batch.topk_ids for batch in held.batches()])
    inside = [np.isin(ids[:, layer], experts) for layer, experts in enumerate(done.resident)]
    assert done["static"].hit_rate == pytest.approx(np.mean(inside))
    assert sum(len(experts) for experts in found.resident) == 24


def test_without_a_size_time_is_counted_in_transfers(found: Residency) -> None:
    """A slower tier takes as much longer as its bandwidth is smaller."""
    assert (found.unit, found.memory_gb) == ("transfers", None)
    assert found["static"].gb_per_step is None
    tiers = (Tier.parse("host:10:.75"), Tier.parse("disk:1"))
    slower = simulate_residency(TRACE, resident=0.5, batch_tokens=4, tiers=tiers)["static"]
    assert slower.step == pytest.approx(slower.moved["host"] + 10 * slower.moved["disk"])


def test_settings_come_from_the_part_that_is_fitted() -> None:
    """What is held out changes no setting, only figures."""
    ids = next(TRACE.batches()).topk_ids
    seq = np.arange(len(ids)) // 64
    other = ids.copy()
    other[seq % 2 == 1] = (other[seq % 2 == 1] + 5) % 16
    one, two = (
        simulate_residency(Trace.of(tokens, num_experts=16, seq_id=seq), resident=0.25, batch_tokens=2).policies
        for tokens in (ids, other)
    )
    chosen = [[(each.budget, each.slots_per_layer, each.settings) for each in rows] for rows in (one, two)]
    assert chosen[0] == chosen[1]
    assert [each.hit_rate for each in one] != [each.hit_rate for each in two]


def test_milliseconds_of_a_machine() -> None:
    """A step takes what its parts take, and waits on top; a faster link waits less."""
    asked: dict[str, Any] = {"memory_gb": 1.0, "machine": "h200:1x1", "model": "qwen3-30b-a3b", "budget": "equal"}
    slow, fast = (simulate_residency(QWEN, tiers=(Tier.parse(text),), **asked) for text in ("host:25", "gpu:300"))
    assert slow.unit == "ms"
    assert slow.slots == int(1e9 / slow.expert_bytes)  # type: ignore[operator]
    assert slow["lru"].waited > fast["lru"].waited > 0
    computed = {round(each.step - each.waited, 9) for each in (*slow.policies, *fast.policies)}
    assert len(computed) == 1
    assert any("layers recorded" in note for note in slow.notes)


def test_what_fits_stays() -> None:
    """With room for everything nothing is moved, and there is no buffer."""
    done = simulate_residency(TRACE, memory_gb=1, expert_bytes=1000)
    assert done.fits
    assert {each.transfers_per_step for each in done.policies} == {0}
    assert {each.hit_rate for each in done.policies} == {1}
    assert done.sentence.startswith("All 48 experts fit")


def test_a_host_that_computes() -> None:
    """Nothing is moved; what was known in hindsight hits more; more resident experts leave less to the host."""
    asked: dict[str, Any] = {"machine": "h200:1x1", "model": "qwen3-30b-a3b", "cold": "compute"}
    quarter, half = (simulate_residency(QWEN, resident=share, **asked) for share in (0.25, 0.5))
    assert [each.name for each in quarter.policies] == ["static", "hindsight"]
    assert quarter["hindsight"].hit_rate >= quarter["static"].hit_rate
    assert {each.transfers_per_step for each in quarter.policies} == {0}
    assert quarter["static"].step > half["static"].step


def test_whole_models_as_experts() -> None:
    """One layer, one expert per prompt: a composition of experts; nothing can be predicted layers ahead."""
    rng = np.random.default_rng(0)
    trace = Trace.of(rng.zipf(1.4, (600, 1, 1)) % 20, num_experts=20)
    done = simulate_residency(trace, resident=0.3, expert_bytes=14_000_000_000, tiers=(Tier.parse("ddr:200"),))
    assert [each.name for each in done.policies] == ["static", "lru", "lfu", "lfu_aged", "belady"]
    assert done["lru"].step == pytest.approx(70 * (1 - done["lru"].hit_rate))
    assert any("left out" in note for note in done.notes)


@pytest.mark.parametrize(
    ("asked", "pointers"),
    [
        ({}, ["/resident"]),
        ({"resident": 0.5, "memory_gb": 3}, ["/resident", "/expert_bytes"]),
        ({"resident": 2.0, "batch_tokens": 0}, ["/resident", "/batch_tokens"]),
        ({"resident": 0.5, "machine": "h200:1x1", "hold_out": 0}, ["/model", "/hold_out"]),
        (
            {"resident": 0.5, "host_gb_s": 3, "rest_ms": 1, "weight_dtype": "fp8"},
            ["/weight_dtype", "/rest_ms", "/host_gb_s"],
        ),
        ({"resident": 0.5, "cold": "compute", "tiers": (Tier.parse("host"),)}, ["/tiers", "/machine"]),
        ({"resident": 0.5, "model": "olmoe", "expert_bytes": 3}, ["/expert_bytes"]),
        ({"resident": 0.5, "tiers": (Tier.parse("disk"), Tier.parse("host:50:.5"))}, ["/tiers", "/tiers"]),
        ({"resident": 0.5, "tiers": ("host",)}, ["/tiers"]),
    ],
)
def test_requests_that_are_refused(asked: dict[str, Any], pointers: list[str]) -> None:
    """All that is wrong with one is told at once."""
    with pytest.raises(InputError) as error:
        ResidencyRequest(**asked)
    assert [each.pointer for each in error.value.violations] == pointers
    assert all(each.remedy for each in error.value.violations)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"resident": 0.001}, "no_slots"),
        ({"resident": 0.5, "machine": "h200:1x8", "model": "olmoe"}, "several_gpus"),
        ({"resident": 0.5, "model": "olmoe"}, "model_differs"),
        ({"residents": 0.5}, "unknown_field"),
    ],
)
def test_what_does_not_fit_the_trace(asked: dict[str, Any], code: str) -> None:
    """Told before anything is read."""
    with pytest.raises(InputError) as error:
        simulate_residency(TRACE, **asked)
    assert [each.code for each in error.value.violations] == [code]


def test_more_than_the_gpu_has_is_refused() -> None:
    """What is resident has to fit into its memory."""
    with pytest.raises(InputError, match="256 experts take 90 GB, and l40s has 48"):
        simulate_residency(
            generate(Synthetic(num_layers=32, num_experts=8, top_k=2, num_tokens=128)),
            memory_gb=1000,
            machine="l40s:1x1",
            model="mixtral-8x7b",
        )


def test_counts_have_no_order() -> None:
    """A cache needs tokens."""
    with pytest.raises(InputError, match="token identity"):
        simulate_residency(load_counts(np.ones((2, 4))), resident=0.5)

"""Residency: what steps need, policies against plain implementations, Belady against brute force, time by hand."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.residency import (
    POLICIES,
    Accesses,
    Clock,
    Fitted,
    Slots,
    Tier,
    hottest,
    read_tokens,
    simulate,
    tier_of_experts,
)
from placement.residency.tiers import check_tiers
from tests.builders.traces import random_trace
from traces import InputError, Trace, Violations

LAYERS, EXPERTS = 3, 5


def accessed(seed: int, tokens: int, batch: int, experts: int = EXPERTS) -> tuple[Accesses, Fitted]:
    """Return the accesses of a random trace, and what was fitted to another one."""
    judged = read_tokens(random_trace(seed, tokens, LAYERS, experts, missing(seed)))
    past = read_tokens(random_trace(seed + 1, 12, LAYERS, experts))
    cut: dict[str, Any] = {"phase": "prefill", "batch_tokens": batch}
    return Accesses.of(judged, **cut), Fitted.of(past, Accesses.of(past, **cut))


def missing(seed: int) -> int:
    """Return a number of experts per token, 1 or 2."""
    return 1 + seed % 2


def sets_of(accesses: Accesses) -> list[list[int]]:
    """Return the items of each set."""
    return [accesses.item[a:b].tolist() for a, b in zip(accesses.start, accesses.start[1:], strict=False)]


CASES = st.tuples(st.integers(0, 999), st.integers(1, 12), st.integers(1, 4))


@settings(max_examples=40, deadline=None)
@given(CASES, st.integers(2, 10))
def test_belady_is_never_beaten(case: tuple[int, int, int], total: int) -> None:
    """No policy moves fewer experts, whether its slots are shared, or split over the layers; prefetches count."""
    accesses, fitted = accessed(*case)
    least = simulate(accesses, "belady", Slots.shared(total, LAYERS), fitted).transfers
    for slots in (Slots.shared(total, LAYERS), Slots.equal(total, LAYERS)):
        for name in POLICIES:
            assert simulate(accesses, name, slots, fitted, prefetch_experts=1).transfers >= least


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_belady_is_the_optimum(seed: int, tokens: int, batch: int, total: int) -> None:
    """On tiny cases no sequence of caches moves fewer experts: every one of them is tried."""
    accesses, fitted = accessed(seed, tokens, batch, experts=2)
    items = range(LAYERS * 2)
    best = {frozenset(kept): 0 for size in range(total + 1) for kept in combinations(items, size)}
    for used in sets_of(accesses):
        after: dict[frozenset[int], int] = {}
        for kept, cost in best.items():
            paid = cost + len(set(used) - kept)
            for size in range(total + 1):
                for next_kept in map(frozenset, combinations(kept | set(used), size)):
                    after[next_kept] = min(paid, after.get(next_kept, paid))
        best = after
    assert simulate(accesses, "belady", Slots.shared(total, LAYERS), fitted).transfers == min(best.values())


def plain(
    name: str,
    accesses: Accesses,
    fitted: Fitted,
    total: int,
    half_life: float,
    width: int,
    cost: npt.NDArray[np.float64],
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return where each access finds its expert, and the prefetches with whether each is used, by lists alone."""
    policy = POLICIES[name]  # type: ignore[index]
    rate = fitted.rate.ravel()
    uses: dict[int, list[int]] = {item: [] for item in range(rate.size)}

    def rank(item: int, step: int) -> tuple[float, int]:
        if policy.rule == "fixed":
            return rate[item] * cost[item], -item
        if policy.rule == "recency":
            return (uses[item][-1] if uses[item] else rate[item] - 2), -item
        if policy.rule == "frequency":
            last = uses[item][-1] / 1e6 if uses[item] else 0.0
            return round(rate[item] * fitted.steps) + len(uses[item]) + last, -item
        decayed = rate[item] * half_life / np.log(2) * 2 ** (-step / half_life)
        return cost[item] * (decayed + sum(2 ** ((use // LAYERS - step) / half_life) for use in uses[item])), -item

    room = total - (width * fitted.lookahead if policy.ahead else 0)
    cache = set(sorted(uses, key=lambda item: rank(item, 0))[len(uses) - room :])
    buffer: dict[int, int] = {}  # item: number of its prefetch
    kinds, ahead = list[int](), list[tuple[int, int]]()
    for index, used in enumerate(sets_of(accesses)):
        step, layer = divmod(index, LAYERS)
        for item in used:
            kinds.append(0 if item in cache else 1 if item in buffer else 2)
            if kinds[-1] == 1:
                ahead[buffer[item]] = (item, len(kinds) - 1)
            uses[item].append(index)
        cache = set(sorted(cache | set(used), key=lambda item: rank(item, step))[-room:] if room else [])
        buffer = {item: number for item, number in buffer.items() if item // EXPERTS != layer}
        if policy.ahead and layer + 1 < LAYERS:
            tokens = accesses.tokens[accesses.start[index] : accesses.start[index + 1]]
            chance = np.zeros(EXPERTS)
            if policy.ahead == "transitions":
                for item, count in zip(used, tokens, strict=True):
                    chance += count / tokens.sum() * fitted.transitions[layer, item % EXPERTS]
                chance = 1 - (1 - chance) ** accesses.step_tokens[step]
            likely = sorted(range(EXPERTS), key=lambda e: (-chance[e], e))
            chosen = [e for e in likely if chance[e] >= 0.25 and (layer + 1) * EXPERTS + e not in cache][:width]
            for e in chosen:
                buffer[(layer + 1) * EXPERTS + e] = len(ahead)
                ahead.append(((layer + 1) * EXPERTS + e, -1))
    return kinds, ahead


@settings(max_examples=40, deadline=None)
@given(CASES, st.integers(2, 8), st.sampled_from(["static", "lru", "lfu", "lfu_aged", "predicted"]), st.floats(1, 9))
def test_policies_do_what_they_say(case: tuple[int, int, int], total: int, name: Any, dear: float) -> None:
    """Compiled loops agree with lists: what is found where, what is prefetched, and what that serves."""
    accesses, fitted = accessed(*case)
    slots = Slots.shared(total, LAYERS)
    cost = np.where(np.arange(LAYERS * EXPERTS) % 2, 1.0, dear)
    found = simulate(accesses, name, slots, fitted, half_life=2.9, prefetch_experts=1, cost=cost)
    kinds, ahead = plain(name, accesses, fitted, total, 2.9, 1, cost)
    assert found.kind.tolist() == kinds
    assert list(zip(found.item_of.tolist(), found.access_of.tolist(), strict=True)) == ahead
    assert found.hit_rate == pytest.approx(found.cache_hit_rate + found.prefetch_hit_rate)
    assert found.wasted + int(found.prefetch_hit_rate * len(accesses) + 0.5) == len(found.item_of)


def chain(tokens: int = 40) -> Trace:
    """Return a trace whose tokens use the expert of one number in all layers, of 5 in turn."""
    ids = np.tile((np.arange(tokens) * 3 % EXPERTS)[:, None, None], (1, LAYERS, 1))
    return Trace.of(ids, num_experts=EXPERTS)


@pytest.mark.parametrize("name", ["predicted", "pregated"])
def test_what_follows_for_sure_is_prefetched(name: Any) -> None:
    """Where the next layer's expert follows from this one's, only the first layer waits for anything."""
    tokens = read_tokens(chain())
    accesses = Accesses.of(tokens)
    fitted = Fitted.of(tokens, accesses)
    found = simulate(accesses, name, Slots.shared(1, LAYERS), fitted, prefetch_experts=1)
    layer = accesses.layer_of
    assert set(found.kind[layer == 0].tolist()) == {2}
    assert set(found.kind[layer > 0].tolist()) == {1}
    assert found.wasted == 0


def test_two_layers_ahead() -> None:
    """With a lookahead of two, the second layer is not known in time either."""
    tokens = read_tokens(chain())
    accesses = Accesses.of(tokens)
    fitted = Fitted.of(tokens, accesses, lookahead=2)
    found = simulate(accesses, "predicted", Slots.shared(2, LAYERS), fitted, prefetch_experts=1)
    assert [set(found.kind[accesses.layer_of == layer].tolist()) for layer in range(3)] == [{2}, {2}, {1}]


def test_prefill_steps_are_unions_of_consecutive_tokens() -> None:
    """Each expert counts once per step and layer, with its tokens; missing entries do not count; all tokens do."""
    ids = [[[0, 1]], [[1, -1]], [[2, 0]]]
    accesses = Accesses.of(read_tokens(Trace.of(ids, num_experts=3)), phase="prefill", batch_tokens=2)
    assert accesses.start.tolist() == [0, 2, 4]
    assert accesses.expert.tolist() == [0, 1, 0, 2]
    assert accesses.tokens.tolist() == [1, 2, 1, 1]
    assert accesses.step_tokens.tolist() == [2, 1]
    following, first = accesses.uses
    assert following.tolist() == [1, 2, 2, 2]
    assert first.tolist() == [0, 0, 1]


def test_decode_steps_are_of_one_token_per_sequence() -> None:
    """A sequence that ends makes room for the next one."""
    ids = np.arange(6)[:, None, None]
    trace = Trace.of(ids, num_experts=6, seq_id=[7, 7, 7, 3, 9, 9])
    accesses = Accesses.of(read_tokens(trace), phase="decode", batch_tokens=2)
    assert sets_of(accesses) == [[0, 3], [1, 4], [2, 5]]


def test_reading_is_bounded() -> None:
    """The first tokens are read, and that there are more is told."""
    tokens = read_tokens(random_trace(0, 50, 2, 4, 1), max_choices=20)
    assert (len(tokens), tokens.cut) == (10, True)
    assert not read_tokens(random_trace(0, 10, 2, 4, 1), max_choices=20).cut


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(0, 6), st.integers(0, 3))
def test_hottest_is_the_best_set_in_both_budgets(seed: int, total: int, per_layer: int) -> None:
    """No set of experts within the budgets has a higher rate: all are tried."""
    rate = np.random.default_rng(seed).integers(0, 5, (2, 3)).astype(float)
    kept = hottest(rate, total, per_layer)
    assert kept.sum() <= total
    assert (kept.sum(axis=1) <= per_layer).all()
    best = 0.0
    for size in range(min(total, 6) + 1):
        for chosen in combinations(range(6), size):
            mask = np.isin(np.arange(6), chosen).reshape(2, 3)
            if (mask.sum(axis=1) <= per_layer).all():
                best = max(best, float(rate[mask].sum()))
    assert rate[kept].sum() == best


def one_step(kind: list[int], ahead: dict[int, list[tuple[int, int]]], compute: float) -> tuple[float, float]:
    """Return time and wait of one step of two layers with two experts each; a transfer takes 10, attention 1."""
    from placement.residency import Simulated

    accesses = Accesses.of(read_tokens(Trace.of([[[0, 1], [0, 1]]], num_experts=2)))
    events = [event for index in range(2) for event in ahead.get(index, [])]
    issued = np.cumsum([0, *(len(ahead.get(index, [])) for index in range(2))])
    simulated = Simulated(
        policy="predicted",
        kind=np.array(kind, np.uint8),
        issued=issued,
        item_of=np.array([item for item, _ in events], np.int32),
        access_of=np.array([access for _, access in events], np.int32),
    )
    clock = Clock(unit="ms", transfer=np.full(4, 10.0), compute=np.full(2, compute), rest=1.0)
    times = clock.fetching(accesses, simulated)
    return times.mean, times.waited


@pytest.mark.parametrize(
    ("kind", "ahead", "time", "waited"),
    [
        ([0, 0, 0, 0], {}, 10, 0),  # 2 x (1 + 4)
        ([0, 2, 0, 0], {}, 18, 8),  # 1 + 10 + the half of 4 that came last, + 5
        ([2, 2, 0, 0], {}, 28, 18),  # both one after the other
        ([0, 0, 0, 1], {0: [(3, 3)]}, 13, 3),  # issued at 1, there at 11, + 2; the layer could begin at 6
        ([2, 0, 0, 0], {0: [(2, -1)]}, 18, 8),  # of no use, and behind the demand
        ([0, 0, 0, 2], {0: [(2, -1)]}, 23, 13),  # of no use: the demand at 6 is behind it, 11 + 10 + 2
    ],
)
def test_time_of_a_step(kind: list[int], ahead: dict[int, list[tuple[int, int]]], time: float, waited: float) -> None:
    """Transfers are one after the other, demands before prefetches; what is there is computed meanwhile."""
    assert one_step(kind, ahead, 4.0) == (time, waited)


def test_cold_experts_on_the_host() -> None:
    """GPU and host compute side by side; the host reads weights, or computes many tokens."""
    accesses = Accesses.of(read_tokens(Trace.of([[[0, 1]], [[0, -1]]], num_experts=2)), phase="prefill", batch_tokens=2)
    fitted = Fitted(steps=1, rate=np.array([[0.0, 1.0]]), transitions=np.zeros((0, 2, 2), np.float32), lookahead=1)
    simulated = simulate(accesses, "static", Slots.shared(1, 1), fitted)
    assert simulated.kind.tolist() == [2, 0]
    clock = Clock(
        unit="ms", transfer=np.zeros(2), compute=np.zeros(1), rest=1.0, dense=0.5, host_read=3.0, host_per_token=2.0
    )
    times = clock.computing(accesses, simulated, np.array([3.0]))
    assert (times.mean, times.waited) == (5.5, 1.0)


def test_tiers() -> None:
    """Bandwidths of known tiers need not be given; the hottest experts lie in the fastest tier."""
    host, disk = Tier.parse("host:40:.5"), Tier.parse("disk")
    assert (host.gb_s, host.share, disk.gb_s, disk.share) == (40, 0.5, 6, 1)
    rate = np.array([[0.1, 0.4], [0.3, 0.2]])
    assert tier_of_experts(rate, (host, disk)).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("text", ["", "floppy", "host:x", "host:0", "host:5:2", "host:5:1:1", "host:nan"])
def test_tiers_that_are_none(text: str) -> None:
    """Named with the form that is wanted."""
    with pytest.raises(InputError, match=r"NAME\[:GB/S\[:SHARE\]\]"):
        Tier.parse(text)


def test_tiers_that_do_not_hold_everything() -> None:
    """Tiers become slower and larger, and the last one has all experts."""
    found = Violations()
    check_tiers((Tier.parse("host:5"), Tier.parse("disk:6:.5")), found)
    assert [each.code for each in found.found] == ["tiers_order", "tiers_incomplete"]


def test_what_does_not_fit_is_refused_at_once() -> None:
    """All of it in one error."""
    accesses, fitted = accessed(0, 3, 1)
    wrong: dict[str, Any] = {"half_life": 0, "confidence": 2, "prefetch_experts": 0, "cost": np.zeros(3)}
    with pytest.raises(InputError) as error:
        simulate(accesses, "x", Slots.shared(4, 2), fitted, **wrong)  # type: ignore[arg-type]
    codes = [each.code for each in error.value.violations]
    ranges = ["half_life_range", "prefetch_experts_range", "confidence_range", "cost_range"]
    assert codes == ["unknown_choice", "slots_differ", *ranges]
    with pytest.raises(InputError, match="larger than all 2 slots"):
        simulate(accesses, "predicted", Slots.shared(2, LAYERS), fitted, prefetch_experts=3)


def test_slots_without_a_buffer() -> None:
    """Taken from the largest cache, one after the other."""
    slots = Slots.per_layer([1, 3, 2]).without(3)
    assert slots.room.tolist() == [1, 1, 1]
    rooms: npt.NDArray[np.int64] = Slots.equal(7, 3).room
    assert rooms.tolist() == [3, 2, 2]

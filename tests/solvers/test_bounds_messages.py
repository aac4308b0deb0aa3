"""Bounds of a layer's messages: below any plan's, whatever tokens choose, and tighter than one choice for all."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.bounds import Level
from solvers.bounds.draws import MOST_DRAWN, Draws
from solvers.bounds.further_replicas import most_more, most_together
from solvers.bounds.home_messages import HomeMessages, TwoHomes
from solvers.bounds.kernels.prices import home_prices
from solvers.bounds.kernels.representatives import choose_representatives
from solvers.bounds.kernels.spare_replicas import share_out
from solvers.bounds.layer_messages import LayerMessages, least_remote
from tests.builders.traces import random_ids

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Block = tuple[int, ...]
Chosen = tuple[Floats, Floats, Floats]


def tokens(rng: np.random.Generator, count: int, experts: int, top_k: int) -> Ints:
    """Return experts of tokens, some of which have fewer than the others."""
    return random_ids(rng, count, 1, experts, top_k, missing=0.1)[:, 0].astype(np.int64)


def random_pairs(rng: np.random.Generator, experts: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return how many tokens use both of two experts."""
    pairs = np.triu(rng.integers(0, 9, (experts, experts)), 1).astype(np.float64)
    return pairs + pairs.T


def level(blocks: int, room: int) -> Level:
    """Return blocks of one GPU each."""
    return Level(cost=1.0, block_of_gpu=np.arange(blocks), blocks=blocks, room=room, fair=1 / blocks)


def fillings(experts: int, blocks: int, room: int, spare: int) -> list[tuple[Block, ...]]:
    """Return what blocks can hold: every expert at least once, and at most so many more replicas."""
    ways = [own for size in range(room + 1) for own in itertools.combinations(range(experts), size)]
    return [
        held
        for held in itertools.product(ways, repeat=blocks)
        if sum(map(len, held)) <= experts + spare and len(set().union(*held)) == experts
    ]


def remote(ids: Ints, homes: Ints, held: tuple[Block, ...]) -> int:
    """Return the fewest messages, each token choosing the blocks that serve it: all at home that can be."""
    total = 0
    for own, home in zip(ids, homes, strict=True):
        away = set(own.tolist()) - {-1} - set(held[home])
        others = [set(block) for number, block in enumerate(held) if number != home]
        total += next(
            count
            for count in range(len(others) + 1)
            if any(away <= set().union(*chosen) for chosen in itertools.combinations(others, count))
        )
    return total


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(4, 2, 2, 0), (6, 2, 3, 0), (6, 3, 2, 0), (4, 2, 3, 1), (4, 2, 3, 2), (4, 3, 2, 1)]),
    top_k=st.integers(1, 4),
    steps=st.integers(0, 200),
)
def test_no_placement_sends_less(seed: int, shape: tuple[int, int, int, int], top_k: int, steps: int) -> None:
    """Before the first step, after a few and after many; with replicas, homes that differ, tokens with few experts."""
    rng = np.random.default_rng(seed)
    experts, blocks, room, spare = shape
    ids, homes = tokens(rng, 12, experts, top_k), rng.integers(0, blocks, 12)
    fewest = min(remote(ids, homes, held) for held in fillings(experts, blocks, room, spare))
    messages = LayerMessages(ids, homes, experts, level(blocks, room), spare)
    before = messages.value
    after = messages.iterate(steps)
    assert before <= after <= fewest + 1e-9
    assert messages.iterate(25) <= fewest + 1e-9


def chosen(ids: Ints, homes: Ints, together: Floats, blocks: int, planes: int, at_home: float = 0.0) -> Chosen:
    """Return what tokens call, the pairs that they count, apart by home or not, and what each token counts of them."""
    called, pairs, by_home = np.zeros((8, blocks)), np.zeros((planes, 8, 8)), np.zeros((8, blocks))
    counts = np.zeros((len(ids), ids.shape[1] * (ids.shape[1] - 1) // 2))
    here = at_home * np.random.default_rng(len(ids)).random((8, blocks))
    choose_representatives(ids, homes, together, here, called, pairs, by_home, counts)
    assert by_home.sum(axis=1) == pytest.approx(pairs.sum(axis=(0, 2)))
    assert counts.sum() == pytest.approx(pairs.sum() / 2)
    return called, pairs, counts


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    top_k=st.integers(1, 6),
    scale=st.sampled_from([0.0, 0.3, 3.0]),
    at_home=st.sampled_from([0.0, 1.0]),
)
def test_tokens_count_no_more_than_their_blocks(seed: int, top_k: int, scale: float, at_home: float) -> None:
    """Whatever is together, and whatever they choose against."""
    rng = np.random.default_rng(seed)
    ids, homes = tokens(rng, 30, 8, top_k), rng.integers(0, 3, 30)
    against = scale * rng.random((8, 8))
    called, pairs, _ = chosen(ids, homes, against + against.T, 3, 3, at_home)
    member = rng.integers(0, 3, 8)
    together = np.triu(member[:, None] == member[None, :], 1)
    used = sum(len({int(member[e]) for e in own if e >= 0}) for own in ids)
    assert called.sum() - (pairs.sum(axis=0) * together).sum() <= used + 1e-9
    assert (pairs == pairs.transpose(0, 2, 1)).all()


def test_against_a_placement_tokens_count_their_blocks_exactly() -> None:
    """One representative for each block, whichever are split unevenly: what one choice for all tokens can't tell."""
    ids = np.array([[0, 1, 2, 4], [0, 1, 2, 3], [0, 4, 5, 6], [3, 7, 2, 6]])
    member = np.arange(8) // 4
    together = (member[:, None] == member[None, :]).astype(np.float64)
    called, pairs, _ = chosen(ids, np.zeros(4, np.int64), together, 2, 1)
    assert called.sum() - (pairs[0] * np.triu(together, 1)).sum() == pytest.approx(2 + 1 + 2 + 2)


def test_choices_beat_one_choice_for_all_tokens() -> None:
    """Tokens that have four experts of a block, and tokens that have one of each of four: no parabola fits both."""
    rng = np.random.default_rng(3)
    ids = np.array([4 * (number % 4) + rng.permutation(4) for number in range(200)])
    spread = np.array([4 * np.arange(4) + rng.integers(4, size=4) for _ in range(100)])
    ids = np.concatenate([ids, spread]).repeat(4, axis=0)
    homes = np.arange(len(ids)) % 4  # each from all homes
    messages = LayerMessages(ids, homes, 16, level(4, 4), 0)
    messages.first_steps = 20
    alike = messages.iterate(20)
    own = tuple(tuple(range(4 * block, 4 * block + 4)) for block in range(4))
    assert 1.2 * alike < messages.iterate(300) <= remote(ids, homes, own)


def test_games_that_are_too_large_have_a_bound_without_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix, and a bound that still holds: by pairs that fit a block, or none."""
    monkeypatch.setattr("solvers.bounds.token_game.Game.max_size", 3)
    rng = np.random.default_rng(1)
    ids, homes = tokens(rng, 40, 6, 4), np.zeros(40, np.int64)
    messages, at_home = LayerMessages(ids, homes, 6, level(3, 2), 0), HomeMessages(ids, 6, 3)
    assert messages.relaxation is None
    assert 0.0 < messages.value <= min(remote(ids, homes, held) for held in fillings(6, 3, 2, 0))
    assert (at_home.relaxation, at_home.value) == (None, 0.0)


def test_many_homes_are_not_told_apart() -> None:
    """More blocks than tokens of each home: the bound holds."""
    ids = np.arange(34).reshape(17, 2) % 17
    homes = np.arange(17)
    messages = LayerMessages(ids, homes, 17, level(17, 1), 0)
    messages.iterate(60)
    assert 0.0 < messages.value <= remote(ids, homes, tuple((expert,) for expert in range(17)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    experts=st.integers(2, 7),
    top_k=st.integers(1, 4),
    steps=st.integers(0, 200),
)
def test_no_block_keeps_more_tokens_at_home(seed: int, experts: int, top_k: int, steps: int) -> None:
    """Whatever one block holds, from half of the experts to all of them, with tokens that use none."""
    rng = np.random.default_rng(seed)
    room = int(rng.integers(-(-experts // 2), experts + 1))
    ids = tokens(rng, 15, experts, min(top_k, experts))
    used = (ids >= 0).any(axis=1)
    kept = max(
        int((np.isin(ids, [-1, *block]).all(axis=1) & used).sum())
        for block in itertools.combinations(range(experts), room)
    )
    messages = HomeMessages(ids, experts, room)
    before = messages.value
    after = messages.iterate(steps)
    assert before <= after <= used.sum() - kept + 1e-9
    assert messages.iterate(25) <= used.sum() - kept + 1e-9


def test_home_bound_is_near_where_tokens_agree() -> None:
    """Two groups of experts that tokens use together, and a home that has room for one of them and one more."""
    rng = np.random.default_rng(5)
    ids = np.array([4 * (number % 3 > 0) + rng.permutation(4)[:3] for number in range(300)])
    messages = HomeMessages(ids, 8, 5)
    kept = max(np.isin(ids, block).all(axis=1).sum() for block in itertools.combinations(range(8), 5))
    assert kept == 200
    assert 0.85 * (300 - kept) <= messages.iterate(400) <= 300 - kept


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), experts=st.integers(2, 6), top_k=st.integers(1, 4), steps=st.integers(0, 120))
def test_two_homes_hold_all_experts_together(seed: int, experts: int, top_k: int, steps: int) -> None:
    """Whatever the two blocks hold, as long as each expert is in one of them or both."""
    rng = np.random.default_rng(seed)
    room = int(rng.integers(-(-experts // 2), experts + 1))
    ids, homes = tokens(rng, 20, experts, min(top_k, experts)), rng.integers(2, size=20)
    blocks = list(itertools.combinations(range(experts), room))
    least = min(
        remote(ids, homes, both)
        for both in itertools.product(blocks, repeat=2)
        if set(both[0]) | set(both[1]) == set(range(experts))
    )
    messages = TwoHomes(ids, homes, experts, room)
    before = messages.value
    after = messages.iterate(steps)
    assert before <= after <= messages.iterate(25) <= least + 1e-9


def test_homes_can_not_both_hold_the_same_experts() -> None:
    """Of two groups of experts, either home alone would hold the one that more tokens use."""
    ids = np.array([[0, 1, 2]] * 60 + [[3, 4, 5]] * 20)
    homes = np.arange(80) % 2
    alone = sum(HomeMessages(ids[homes == home], 6, 3).iterate(200) for home in range(2))
    assert alone <= 20
    assert 38 <= TwoHomes(ids, homes, 6, 3).iterate(200) <= 40


def test_least_remote_of_known_fan_outs() -> None:
    """Tight where all blocks serve the same number of experts or one more; never negative."""
    assert least_remote(6.0, 0.0, 3.0, 6) == pytest.approx(3.0)  # three blocks of two
    assert least_remote(5.0, 0.0, 4.0, 6) == pytest.approx(2.0)  # blocks of two and three
    assert least_remote(6.0, 6.0, 0.0, 6) == 0.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), spare=st.integers(0, 3))
def test_most_together_covers_every_choice_of_replicas(seed: int, spare: int) -> None:
    """No way to fill two blocks of slots has more pairs that share a block."""
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 4)
    room = 2 + spare // 2
    blocks = itertools.product(itertools.combinations(range(4), room), repeat=2)
    most = 0.0
    for left, right in blocks:
        if set(left) | set(right) == set(range(4)):
            shared = np.zeros((4, 4), dtype=bool)
            for block in (left, right):
                shared[np.ix_(block, block)] = True
            most = max(most, float(pairs[shared].sum()) / 2)
    assert most_together(pairs, room, 2 * room) >= most


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), spare=st.integers(1, 3))
def test_further_replicas_add_no_more_than_that(seed: int, spare: int) -> None:
    """Pairs together in blocks with replicas: at most those of single ones in as large blocks, and what is added."""
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 5)
    room = -(-(5 + spare) // 2)

    def together(blocks: tuple[tuple[int, ...], ...]) -> float:
        shared = np.zeros((5, 5), dtype=bool)
        for block in blocks:
            shared[np.ix_(block, block)] = True
        return float(pairs[shared].sum()) / 2

    fillings = [block for size in range(room + 1) for block in itertools.combinations(range(5), size)]
    covers = [(a, b) for a, b in itertools.product(fillings, repeat=2) if set(a) | set(b) == set(range(5))]
    single = max(together(blocks) for blocks in covers if not set(blocks[0]) & set(blocks[1]))
    most = max(together(blocks) for blocks in covers if len(blocks[0]) + len(blocks[1]) <= 5 + spare)
    assert most <= single + most_more(pairs, room, spare)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), spare=st.integers(0, 6))
def test_spare_replicas_bring_no_more_than_is_shared_out(seed: int, spare: int) -> None:
    """Whatever the shape of the gains: at least the best of all ways, and that exactly where gains fall."""
    rng = np.random.default_rng(seed)
    gains, taken = np.cumsum(rng.random((3, 4)), axis=1), np.zeros(3, np.int64)
    gains[:, 0] = 0.0
    ways = [way for way in itertools.product(range(4), repeat=3) if sum(way) <= spare]
    best = max(sum(gains[e, k] for e, k in enumerate(way)) for way in ways)
    assert share_out(gains, spare, taken) >= best - 1e-12
    assert taken.sum() == min(spare, 9)
    falling = np.cumsum(-np.sort(-np.diff(gains, axis=1), axis=1), axis=1)
    falling = np.concatenate([np.zeros((3, 1)), falling], axis=1)
    best = max(sum(falling[e, k] for e, k in enumerate(way)) for way in ways)
    assert share_out(falling, spare, taken) == pytest.approx(best)


def served_together(
    ids: Ints, homes: Ints, drawn: Ints, counts: Floats, blocks_of: list[list[int]], told_apart: bool
) -> float:
    """Return what the pairs count that are served in one block, neither of them at home where homes are told apart."""
    total, top_k = 0.0, ids.shape[1]
    for token, home in enumerate(homes):
        for j, k in itertools.combinations(range(top_k), 2):
            mine, other = blocks_of[ids[token, j]], blocks_of[ids[token, k]]
            if told_apart and (home in mine or home in other):
                continue
            first, second = mine[int(drawn[token, j]) % len(mine)], other[int(drawn[token, k]) % len(other)]
            total += (first == second) * counts[token, k * (k - 1) // 2 + j]
    return total


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    told_apart=st.booleans(),
    shape=st.sampled_from([(3, 2, 2, 2), (3, 2, 2, 2), (4, 2, 3, 2), (5, 3, 3, 3), (6, 3, 5, 3)]),
)
def test_draws_are_no_more_above_even_than_that(seed: int, told_apart: bool, shape: tuple[int, int, int, int]) -> None:
    """Pairs served together by any plan: at most those of a random replica of each, and what draws are above even."""
    rng = np.random.default_rng(seed)
    experts, blocks, room, top_k = shape
    count, columns = 60, list(itertools.combinations(range(top_k), 2))
    ids = np.array([rng.permutation(experts)[:top_k] for _ in range(count)])
    homes = rng.integers(0, rng.integers(1, blocks + 1), count)  # some without tokens
    held = np.concatenate([np.arange(experts), rng.integers(0, experts, blocks * room - experts)])
    slots = rng.permutation(held) if rng.random() < 0.5 else held
    blocks_of = [sorted(slot // room for slot in range(len(slots)) if slots[slot] == e) for e in range(experts)]
    if max(map(len, blocks_of)) > MOST_DRAWN:
        return
    # Draws that bring together what can be: in the block that has most of a token's experts.
    wanted = [max(range(blocks), key=lambda block: sum(block in blocks_of[e] for e in mine)) for mine in ids]
    drawn = np.array(
        [
            [own.index(block) if (own := blocks_of[e]).count(block) else rng.integers(len(own)) for e in mine]
            for mine, block in zip(ids, wanted, strict=True)
        ],
        np.int64,
    )
    counts = rng.random((count, len(columns))) * (rng.random((count, len(columns))) < 0.8)
    by_home = np.zeros((blocks, experts, experts))
    for j, k in columns:
        for mine, other in ((ids[:, k], ids[:, j]), (ids[:, j], ids[:, k])):
            np.add.at(by_home, (homes, mine, other), counts[:, k * (k - 1) // 2 + j])
    pairs = by_home.sum(axis=0) - (by_home.min(axis=0) if told_apart else 0.0)
    most = np.zeros((experts, MOST_DRAWN + 1, 2))
    draws = Draws(ids, homes, drawn.astype(np.uint64), blocks, room, told_apart=told_apart)
    draws.above_even(counts, pairs, np.arange(experts), most)
    even = sum(
        pairs[e, f] * np.mean([a == b for a in blocks_of[e] for b in blocks_of[f]])
        for e, f in itertools.combinations(range(experts), 2)
    )
    above = sum(
        most[e, len(own), int(len(set(own)) == min(len(own), blocks))]
        for e, own in enumerate(blocks_of)
        if len(own) > 1
    )
    actual = served_together(ids, homes, drawn, counts, blocks_of, told_apart)
    assert actual <= even + above + 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), experts=st.integers(4, 7))
def test_draws_within_nodes_are_no_more_above_even_than_that(seed: int, experts: int) -> None:
    """Tokens of a node draw among its replicas: at most random ones of each node's, and what is above even."""
    rng = np.random.default_rng(seed)
    node_of_block, room = np.array([0, 0, 1, 1]), 2
    ids = np.array([rng.permutation(experts)[:2] for _ in range(60)], np.int32)
    homes = rng.choice(rng.permutation(4)[: rng.integers(1, 5)], len(ids))  # some without tokens
    held = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, 8 - experts)]))
    blocks_of = [[slot // room for slot in range(8) if held[slot] == e] for e in range(experts)]
    near = [[[block for block in own if node_of_block[block] == node] or own for own in blocks_of] for node in range(2)]
    # Draws that bring both together where that can be.
    drawn = np.zeros(ids.shape, np.int64)
    for token, (i, j) in enumerate(ids):
        mine, other = (near[node_of_block[homes[token]]][e] for e in (i, j))
        both = sorted(set(mine) & set(other))
        drawn[token] = [own.index(rng.choice(both)) if both else rng.integers(len(own)) for own in (mine, other)]
    counts, by_home, actual = rng.random((len(ids), 1)), np.zeros((4, experts, experts)), 0.0
    for token, (i, j) in enumerate(ids):
        by_home[homes[token], [i, j], [j, i]] += counts[token, 0]
        of_node = near[node_of_block[homes[token]]]
        if homes[token] not in blocks_of[i] + blocks_of[j]:
            actual += counts[token, 0] * (of_node[i][drawn[token, 0]] == of_node[j][drawn[token, 1]])
    pairs = by_home.sum(axis=0) - by_home.min(axis=0)
    draws = Draws(ids, homes, drawn.astype(np.uint64), 4, room, told_apart=True, node_of_block=node_of_block)
    most = np.zeros((experts, MOST_DRAWN + 1, 2))
    draws.above_even(counts, pairs, np.arange(experts), most)
    share = [np.mean(node_of_block[homes] == node) for node in range(2)]
    even = sum(
        pairs[e, f] * share[node] * np.mean([a == b for a in near[node][e] for b in near[node][f]])
        for e, f in itertools.combinations(range(experts), 2)
        for node in range(2)
    )
    above = sum(most[e, len(own), 0] for e, own in enumerate(blocks_of) if len(own) > 1)
    assert actual <= even + above + 1e-9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), room=st.integers(2, 4))
def test_prices_of_places_at_home_are_safe(seed: int, room: int) -> None:
    """No way to fill the blocks serves more at home, and prices lower what is bounded where all want the same home."""
    rng = np.random.default_rng(seed)
    called = rng.random((4, 2)) * np.array([3.0, 1.0])
    prices = home_prices(called, room)
    assert (prices >= 0).all()
    bound = (called - prices).max(axis=1).sum() + room * prices.sum()
    ways = [way for way in itertools.product(range(2), repeat=4) if max(way.count(0), way.count(1)) <= room]
    assert max(called[np.arange(4), list(way)].sum() for way in ways) <= bound + 1e-12
    assert home_prices(np.array([[3.0, 1.0]] * 4), 2).max() == pytest.approx(2.0)

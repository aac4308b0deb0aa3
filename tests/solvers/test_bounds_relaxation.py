"""The relaxation never cuts off a plan, converged or not, and is tighter than the instant bounds."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.bounds.relaxation import LoadRows, Relaxation

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
SHAPES = [(1, 2, 2), (2, 2, 2), (3, 2, 1), (1, 3, 2), (2, 3, 1), (2, 2, 3), (3, 2, 2)]  # layers, blocks, room


def arrangements(blocks: int, room: int) -> list[tuple[int, ...]]:
    """Return all ways to give each place of a layer a block."""
    return sorted(set(permutations(np.repeat(np.arange(blocks), room).tolist())))


def weights(rng: np.random.Generator, layers: int, places: int) -> Array:
    """Return a symmetric weight with zero diagonal."""
    weight = rng.random((layers * places,) * 2) ** 3
    weight = weight + weight.T
    np.fill_diagonal(weight, 0.0)
    return weight


def best_plan(weight: Array, layers: int, blocks: int, room: int, rows: LoadRows | None = None) -> float:
    """Return the most weight that a plan keeps together, less the price of its excess load and of its largest one."""
    best = -np.inf
    for plan in product(arrangements(blocks, room), repeat=layers):
        member = np.array(plan).ravel()
        value = float(weight[member[:, None] == member[None, :]].sum())
        if rows is not None:
            for layer, own in enumerate(plan):
                load = np.bincount(own, weights=rows.load[layer], minlength=blocks)
                excess = float(np.maximum(0.0, load - rows.cap[layer]).sum())
                value -= float(rows.price[layer]) * max(0.0, excess - float(rows.counted[layer]))
                value -= float(rows.top_price[layer]) * max(0.0, float(load.max() - rows.cap[layer]))
        best = max(best, value)
    return best


def load_rows(rng: np.random.Generator, layers: int, blocks: int, places: int) -> LoadRows:
    """Return loads with a mean of 1 per block, a tight cap, and prices from none to dear."""
    load = rng.random((layers, places)) ** 2
    load *= blocks / load.sum(axis=1, keepdims=True)
    cap, price = 1.0 + rng.random(layers) / 4, rng.choice([0.0, 0.5, 20.0], layers)
    top_price = rng.choice([0.0, 0.5, 20.0], layers)
    return LoadRows(load=load, cap=cap, price=price, top_price=top_price, counted=rng.choice([0.0, 0.1], layers))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from(SHAPES), capped=st.booleans(), steps=st.integers(0, 90))
def test_never_below_the_best_plan(seed: int, shape: tuple[int, int, int], capped: bool, steps: int) -> None:
    """However many steps it took, with and without a load cap; and more steps never weaken it."""
    rng = np.random.default_rng(seed)
    layers, blocks, room = shape
    weight = weights(rng, layers, blocks * room)
    rows = load_rows(rng, layers, blocks, blocks * room) if capped else None
    relaxation = Relaxation(weight, layers, blocks, rows)
    best, before = best_plan(weight, layers, blocks, room, rows), relaxation.value
    assert before >= best
    for _ in range(3):
        after = relaxation.iterate(steps // 3)
        assert best <= after <= before
        before = after


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from(SHAPES), scale=st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
def test_any_duals_are_safe(seed: int, shape: tuple[int, int, int], scale: float) -> None:
    """Duals that no method would choose: a random split, random triangles, random multipliers of loads."""
    rng = np.random.default_rng(seed)
    layers, blocks, room = shape
    places, n = blocks * room, layers * blocks * room
    weight, rows = weights(rng, layers, places), load_rows(rng, layers, blocks, places)
    relaxation = Relaxation(weight, layers, blocks, rows)
    dual = rng.standard_normal((n, n))
    relaxation.dual = scale * (dual + dual.T)
    if n > 2:
        chosen = np.array([rng.permutation(n)[:3] for _ in range(5)], np.int32)
        relaxation.triangles, relaxation.triangle_dual = chosen, scale * rng.random(5)
    relaxation.load_dual = scale * rng.random((n, layers))
    assert relaxation.iterate(0) >= best_plan(weight, layers, blocks, room, rows)
    assert relaxation.bound_of(relaxation.dual) * weight.sum() >= best_plan(weight, layers, blocks, room, rows)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from(SHAPES), steps=st.integers(0, 60))
def test_goes_on_with_another_weight(seed: int, shape: tuple[int, int, int], steps: int) -> None:
    """Its bounds are those of the new weight: above its best plan, and with steps below the whole weight."""
    rng = np.random.default_rng(seed)
    layers, blocks, room = shape
    first, second = (weights(rng, layers, blocks * room) for _ in range(2))
    relaxation = Relaxation(first, layers, blocks)
    relaxation.iterate(steps)
    relaxation.reweigh(second)
    assert relaxation.iterate(steps) >= best_plan(second, layers, blocks, room)
    assert relaxation.iterate(200) < second.sum()


def chain(layers: int, experts: int) -> Array:
    """Return a chain of layers where each expert is followed by those near it on a ring, and by others by chance."""
    rng = np.random.default_rng(7)
    weight = np.zeros((layers, experts, layers, experts))
    apart = np.abs(np.arange(experts)[:, None] - np.arange(experts)[None, :])
    near = np.exp(-np.minimum(apart, experts - apart) / 2)
    for layer in range(layers - 1):
        pair = (near + rng.random((experts, experts)) ** 4)[rng.permutation(experts)]
        weight[layer, :, layer + 1, :] = pair / 2
        weight[layer + 1, :, layer, :] = pair.T / 2
    return weight.reshape(layers * experts, -1)


def test_tighter_than_row_column_and_spectral_bounds() -> None:
    """A ring has no blocks that keep every expert's best partners: the relaxation knows, the instant bounds don't."""
    weight, room = chain(2, 16), 4
    pair = 2 * weight[:16, 16:]
    by_row = float(np.sort(pair, axis=1)[:, -room:].sum())
    by_column = float(np.sort(pair, axis=0)[-room:].sum())
    centred = pair - pair.mean(axis=0) - pair.mean(axis=1, keepdims=True) + pair.mean()
    spectral = pair.sum() / 4 + room * float(np.linalg.svd(centred, compute_uv=False)[:3].sum())
    relaxation = Relaxation(weight, 2, 4)
    assert relaxation.value == pytest.approx(min(by_row, by_column, spectral), rel=1e-9)
    assert relaxation.iterate(200) < 0.97 * min(by_row, by_column, spectral)


def test_windows_are_tighter_than_their_pairs() -> None:
    """Relaxing four layers at once closes part of the price of chaining."""
    weight, places = chain(4, 9), 9
    whole = Relaxation(weight, 4, 3).iterate(200)
    pairs = 0.0
    for layer in range(3):
        span = slice(layer * places, (layer + 2) * places)
        own = np.zeros((2 * places, 2 * places))
        own[:places, places:] = weight[span, span][:places, places:]
        pairs += Relaxation(own + own.T, 2, 3).iterate(200)
    assert whole < 0.999 * pairs


def test_weight_without_entries_is_bounded() -> None:
    """Nothing to keep together: the bound is nearly 0."""
    assert Relaxation(np.zeros((4, 4)), 1, 2).iterate(5) == pytest.approx(0.0, abs=1e-9)

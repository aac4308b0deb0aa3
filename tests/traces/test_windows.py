"""Windows of load: bounded, aligned, merging exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import InputError
from traces.profile.windows import WindowedLoad


def windows(source: int, count: int, width: int = 4, limit: int = 8, seed: int = 0) -> WindowedLoad:
    """`count` windows of one source with random loads."""
    rng = np.random.default_rng(seed)
    return WindowedLoad(
        window_tokens=width,
        limit=limit,
        source=np.full(count, source, np.uint64),
        index=np.arange(count),
        tokens=np.full(count, width),
        load=rng.integers(0, 9, (count, 2, 3)),
    )


def as_dict(item: WindowedLoad) -> dict[tuple[int, int, int], list[int]]:
    """All content, for comparison."""
    keys = zip(item.source.tolist(), item.index.tolist(), item.tokens.tolist(), strict=True)
    return {
        (item.window_tokens, source, index): [tokens, *load.ravel().tolist()]
        for (source, index, tokens), load in zip(keys, item.load, strict=True)
    }


@given(count=st.integers(1, 100), limit=st.integers(1, 20))
def test_a_source_never_exceeds_the_limit(count: int, limit: int) -> None:
    """One source keeps at most `limit` windows, and its totals."""
    part = windows(5, count, limit=limit)
    joined = WindowedLoad.union([part])
    assert len(joined) <= limit
    assert np.array_equal(joined.load.sum(axis=0), part.load.sum(axis=0))
    assert joined.tokens.sum() == part.tokens.sum()


@given(
    counts=st.lists(st.integers(1, 30), min_size=3, max_size=3),
    powers=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    sources=st.lists(st.integers(0, 2**63), min_size=3, max_size=3),
)
def test_union_is_associative_and_commutative(counts: list[int], powers: list[int], sources: list[int]) -> None:
    """The order of merging does not matter, also for one source in several parts and for wider windows."""
    parts = [windows(s, n, width=4 << p, seed=n) for s, n, p in zip(sources, counts, powers, strict=True)]
    a, b, c = (WindowedLoad.union([part]) for part in parts)
    together = as_dict(WindowedLoad.union([a, b, c]))
    assert as_dict(WindowedLoad.union([WindowedLoad.union([a, b]), c])) == together
    assert as_dict(WindowedLoad.union([a, WindowedLoad.union([c, b])])) == together


def test_more_sources_than_the_limit_keep_one_window_each() -> None:
    """Sources are never mixed."""
    joined = WindowedLoad.union([windows(source, 3, limit=2) for source in range(5)])
    assert sorted(joined.source.tolist()) == list(range(5))


@pytest.mark.parametrize(("first", "second"), [(4, 6), (4, 12), (3, 2)])
def test_windows_that_do_not_nest_are_refused(first: int, second: int) -> None:
    """Widths must differ by a power of two."""
    with pytest.raises(InputError, match="don't nest"):
        WindowedLoad.union([windows(0, 2, width=first), windows(1, 2, width=second)])

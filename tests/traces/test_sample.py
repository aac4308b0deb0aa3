"""The bottom-k sample of whole tokens."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from traces.batch import Batch
from traces.profile.sample import SampleBuilder, TokenSample, row_priority


def sample_rows(
    rows: np.ndarray[tuple[int], np.dtype[np.int64]], capacity: int, step: int, key: int = 7
) -> TokenSample:
    """Sample tokens whose ids tell their row, `step` at a time."""
    builder = SampleBuilder(capacity, key)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        builder.add(Batch(topk_ids=(part % 100).reshape(-1, 1, 1), rows=part))
    sample = builder.finish()
    assert sample is not None
    return sample


@given(tokens=st.integers(1, 300), capacity=st.integers(1, 50), step=st.integers(1, 80))
def test_sample_is_the_smallest_priorities(tokens: int, capacity: int, step: int) -> None:
    """Whatever the batches, the sample is the brute-force bottom k, in order."""
    rows = np.arange(tokens)
    sample = sample_rows(rows, capacity, step)
    expected = np.argsort(row_priority(rows, 7), kind="stable")[:capacity]
    assert sample.rows.tolist() == expected.tolist()
    assert sample.topk_ids.ravel().tolist() == (expected % 100).tolist()
    assert (np.diff(sample.priority.astype(float)) >= 0).all()


@given(cut=st.integers(1, 199), capacity=st.integers(1, 60))
def test_union_is_the_sample_of_the_union(cut: int, capacity: int) -> None:
    """Merging the samples of two parts gives the sample of the whole, in either order."""
    rows = np.arange(200)
    whole = sample_rows(rows, capacity, 50)
    first, second = sample_rows(rows[:cut], capacity, 50), sample_rows(rows[cut:], capacity, 50)
    assert TokenSample.union([first, second]).rows.tolist() == whole.rows.tolist()
    assert TokenSample.union([second, first]).rows.tolist() == whole.rows.tolist()


def test_samples_are_uniform() -> None:
    """Over many keys, each of 20 rows is drawn equally often (chi-square far below its 1e-6 quantile)."""
    rows = np.arange(20)
    drawn = np.concatenate([np.argsort(row_priority(rows, key))[:5] for key in range(4000)])
    counts = np.bincount(drawn, minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 60


def test_no_capacity_no_sample() -> None:
    """Capacity 0 keeps nothing."""
    builder = SampleBuilder(0, 1)
    builder.add(Batch(topk_ids=np.zeros((3, 1, 1), int), rows=np.arange(3)))
    assert builder.finish() is None

"""Rows that no token made are reported for every format, and dropped on request only."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import random_ids
from traces import InputError, Profile, Trace, load, save
from traces.repeats import Repeats

RNG = np.random.default_rng(0)
REAL = random_ids(RNG, 300, 4, 32, 4)


def saved(path: Path, ids: np.ndarray[Any, Any]) -> Path:
    """Write an `.npz`, unchecked."""
    np.savez(path, topk_ids=ids, num_experts=np.int64(32), layer_ids=np.arange(4), seq_id=np.arange(len(ids)))
    return path


def test_repeated_rows_are_reported_and_kept(tmp_path: Path) -> None:
    """By default the trace is as it was recorded, with a note."""
    ids = np.concatenate([np.repeat(REAL[:1], 100, axis=0), REAL])
    trace = load(saved(tmp_path / "t.npz", ids))
    assert isinstance(trace, Trace)
    assert trace.num_tokens == sum(map(len, trace.batches())) == 400
    (note,) = trace.provenance.notes
    assert "25.0% repeat" in note
    assert "`drop_dummy_rows`" in note


@pytest.mark.parametrize("step", [7, 1000])
def test_dummies_are_dropped_on_request(tmp_path: Path, step: int) -> None:
    """Repeats go, wherever batches end, and rows of one id, else refused; the rest stays in order."""
    zeros = np.zeros((50, 4, 4), int)
    ids = np.concatenate([zeros, REAL[:10], np.repeat(REAL[9:10], 30, axis=0), REAL[10:], zeros])
    path = saved(tmp_path / "t.npz", ids)
    trace = load(path, drop_dummy_rows=True)
    assert isinstance(trace, Trace)
    parts = list(trace.batches(step))
    assert np.array_equal(np.concatenate([part.topk_ids for part in parts]), REAL)
    assert np.concatenate([part.rows for part in parts]).tolist() == [*range(50, 60), *range(90, 380)]
    assert trace.num_tokens is None
    assert trace.digest != load(path).digest


def test_rows_of_zeros_with_one_expert_per_token(tmp_path: Path) -> None:
    """In many layers, a row of zeros is no token with K = 1 either, and goes though none stands beside it."""
    ids = random_ids(0, 60, 8, 32, 1)
    ids[::3] = 0
    np.savez(tmp_path / "t.npz", topk_ids=ids, num_experts=np.int64(32), layer_ids=np.arange(8))
    trace = load(tmp_path / "t.npz", drop_dummy_rows=True)
    assert isinstance(trace, Trace)
    assert sum(map(len, trace.batches())) == 40


def test_real_and_small_rows_raise_no_note(tmp_path: Path) -> None:
    """Few layers with one expert are alike by chance."""
    save(Trace.of(REAL, num_experts=32), tmp_path / "a.npz")
    save(Trace.of(np.zeros((500, 1, 1), int), num_experts=32), tmp_path / "b.npz")
    assert load(tmp_path / "a.npz").provenance.notes == load(tmp_path / "b.npz").provenance.notes == ()


def test_counts_say_that_nothing_can_be_dropped(tmp_path: Path) -> None:
    """The request is not ignored in silence."""
    (tmp_path / "w.csv").write_text("1.5,2\n3,4\n")
    with pytest.raises(InputError, match="drop_dummy_rows"):
        load(tmp_path / "w.csv", drop_dummy_rows=True)


def test_a_single_id_is_possible_for_top_1() -> None:
    """With K = 1 a token may choose the same expert in every layer."""
    assert Repeats().mask(np.array([[[3], [3]], [[4], [4]]])).tolist() == [False, False]
    assert Repeats().mask(np.array([[[3, 3]], [[3, 4]]])).tolist() == [True, False]


def test_a_pass_to_the_end_counts_all_rows(tmp_path: Path) -> None:
    """Dummies that begin after the first rows are told by the profile; what the start said gives way to the whole."""
    real = np.concatenate([REAL[RNG.permutation(300)] for _ in range(30)])
    late = saved(tmp_path / "late.npz", np.concatenate([real, np.repeat(REAL[:1], 1000, axis=0)]))
    trace = load(late)
    assert trace.provenance.notes == ()
    (note,) = Profile.of(trace).sources[0].notes
    assert note.startswith("Of all 10,000 rows, 10.0% repeat")
    early = load(saved(tmp_path / "early.npz", np.concatenate([np.repeat(REAL[:1], 1000, axis=0), real])))
    assert early.provenance.notes[0].startswith("Of the first 8,192 rows, 12.")
    (note,) = Profile.of(early).sources[0].notes
    assert note.startswith("Of all 10,000 rows, 10.0% repeat")
    save(Trace.of(REAL, num_experts=32), tmp_path / "none.npz")
    assert Profile.of(load(tmp_path / "none.npz")).sources[0].notes == ()


@pytest.mark.parametrize("step", [1, 3, 64])
def test_all_rows_are_found_wherever_batches_end(step: int) -> None:
    """Comparing one id first finds what comparing whole rows finds."""
    ids = RNG.integers(0, 2, (200, 3, 2))
    found = Repeats()
    marked = np.concatenate([found.mask(ids[start : start + step]) for start in range(0, 200, step)])
    flat = ids.reshape(200, -1)
    repeated = np.r_[False, (flat[1:] == flat[:-1]).all(axis=1)]
    uniform = (flat == flat[:, :1]).all(axis=1)
    assert marked.tolist() == (repeated | uniform).tolist()
    assert (found.rows, found.repeated, found.uniform) == (200, repeated.sum(), uniform.sum())
    assert repeated.any()
    assert uniform.any()

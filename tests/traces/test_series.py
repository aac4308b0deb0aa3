"""Series: windows of traces and counts in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.series import domain_trace, dumps_of
from traces import InputError, Series, Trace, drift_between, save
from traces.series import cutting


def test_windows_by_source_take_turns() -> None:
    """Sources take turns, and each token is in exactly one window."""
    trace = domain_trace(0, 3, 6)
    series = Series.of(trace, windows=7)
    assert [window.name[:8] for window in series.windows] == [f"source {number % 3}" for number in range(7)]
    assert sum(window.load.sum() for window in series.windows) == 3 * 6 * 40 * 3
    assert np.unique(np.concatenate([b.data_source for b in _batches(series.windows[4].tokens)])).tolist() == [1]


def test_sequences_are_not_cut() -> None:
    """A sequence stays in the window where it begins, whatever the sizes of the batches."""
    series = Series.of(domain_trace(0, 1, 9), windows=4, by="tokens")
    seen = [{int(name) for batch in _batches(window.tokens) for name in batch.seq_id} for window in series.windows]
    assert sum(map(len, seen)) == 9
    assert all(window.load.sum() % (40 * 3) == 0 for window in series.windows)


def test_interleaved_sequences_are_cut_by_time() -> None:
    """Where tokens of many sequences alternate, as decode steps record them, windows are equal runs of tokens."""
    ids = np.random.default_rng(0).integers(0, 4, (400, 2, 1))
    series = Series.of(Trace.of(ids, num_experts=4, seq_id=np.arange(400) % 8), windows=4)
    assert [window.load.sum() for window in series.windows] == [200.0] * 4
    assert all(len(window.parts) == 8 for window in series.windows)


def test_parts_are_of_equally_many_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts have as many whole sequences each, so that they can be exchanged; what is left over stays in the load."""
    monkeypatch.setattr(cutting, "PARTS", 4)
    trace = domain_trace(0, 2, 11)
    series = Series.of(trace.where(_all_of_one_and_some_of_the_other, "fewer of the second"))
    parts = [window.parts.sum(axis=(1, 2)) / (40 * 3) for window in series.windows]
    assert [part.tolist() for part in parts] == [[4.0, 4.0], [1.0, 1.0, 1.0]]
    assert [window.per_part for window in series.windows] == [4, 1]
    assert series.windows[0].load.sum() == 11 * 40 * 3
    assert drift_between([series.windows[0]], [series.windows[1]]).method == "none"  # 2 parts of 4, and none


def test_dumps_are_windows_with_their_times() -> None:
    """Each dump is a window; fewer windows join neighbours, and keep the dumps as their parts."""
    loads = np.arange(1, 6 * 2 * 3 + 1).reshape(6, 2, 3)
    counts = dumps_of(loads, times=[1e9 + 60 * number for number in range(6)])
    series = Series.of(counts)
    assert series.times is not None
    assert np.diff(series.times).tolist() == [60.0] * 5
    assert np.array_equal(np.stack([window.load for window in series.windows]), loads)
    joined = Series.of(counts, windows=3)
    assert [window.parts.shape[0] for window in joined.windows] == [2, 2, 2]
    assert np.array_equal(joined.windows[1].load, loads[2] + loads[3])


def test_files_of_tokens_are_windows(tmp_path: Path) -> None:
    """Several files of tokens make a window each, in the order given."""
    paths = [tmp_path / f"{name}.npz" for name in ("later", "earlier")]
    for seed, path in enumerate(paths):
        save(domain_trace(seed, 1, 3 + seed), path)
    series = Series.of(paths)
    assert [window.load.sum() for window in series.windows] == [3 * 40 * 3, 4 * 40 * 3]


@pytest.mark.parametrize(
    ("source", "asked", "code"),
    [
        (domain_trace(0, 3, 2), {"windows": 2, "by": "source"}, "windows_range"),
        (domain_trace(0, 1, 2), {"by": "source"}, "no_sources"),
        (domain_trace(0, 1, 2), {"windows": 1}, "windows_range"),
        (domain_trace(0, 1, 2), {"windows": 5, "by": "tokens"}, "empty_window"),
        (dumps_of(np.ones((3, 2, 4))), {"windows": 4}, "windows_range"),
        (dumps_of(np.ones((3, 2, 4))), {"by": "source"}, "without_effect"),
        (dumps_of(np.ones((1, 2, 4))), {}, "one_dump"),
    ],
)
def test_what_makes_no_series_is_refused(source: object, asked: dict[str, object], code: str) -> None:
    """Windows that a source can't fill are refused by what is wrong."""
    with pytest.raises(InputError) as caught:
        Series.of(source, **asked)  # type: ignore[arg-type]  # of either kind
    assert caught.value.violations[0].code == code


def _batches(trace: Trace | None) -> list[Any]:
    assert trace is not None
    return list(trace.batches())


def _all_of_one_and_some_of_the_other(batch: Any) -> Any:
    return (batch.data_source == 0) | (batch.seq_id < 15)

"""Series of recordings of their own."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.series import domain_trace, dumps_of
from traces import InputError, LoadCounts, Profile, Series, series_of_each
from traces.series.each import drift_of_next, window_of


def test_each_recording_is_a_window() -> None:
    """Traces as a whole, in order, with their times."""
    recorded = [domain_trace(seed, 1, 6) for seed in range(2)]
    series = series_of_each(recorded, names=["a", "b"], times=[1, 2])
    assert [(window.name, window.time, window.load.sum()) for window in series.windows] == [
        ("a", 1.0, 720.0),
        ("b", 2.0, 720.0),
    ]
    assert series.has_tokens


def test_dumps_of_counts_are_parts() -> None:
    """Neighbours are joined until there are few, all parts of as many dumps; a profile is one part."""
    counts = dumps_of(np.arange(1, 1 + 67 * 2 * 3).reshape(67, 2, 3))
    window = window_of(counts, "x")
    assert (window.parts.shape, window.per_part) == ((16, 2, 3), 4)
    assert np.array_equal(window.parts[1], sum(dump.read() for dump in counts.dumps[4:8]))
    assert np.array_equal(window.load, counts.load)
    assert window_of(Profile.of(domain_trace(0, 1, 6)), "p").parts.shape == (1, 3, 8)


def test_all_that_does_not_go_together_is_told() -> None:
    """Other layers and experts, another kind, times out of order."""
    first, other = LoadCounts.of(np.ones((2, 4))), LoadCounts.of(np.ones((3, 5)))
    with pytest.raises(InputError) as told:
        series_of_each([first, other, domain_trace(0, 1, 6)])
    assert [(item.pointer, item.code) for item in told.value.violations] == [
        ("/windows/1", "layers_differ"),
        ("/windows/1", "experts_differ"),
        ("/windows/2", "kinds_differ"),
    ]
    for times, code in (([2, 1], "time_order"), ([1, float("nan")], "time_range"), ([1], "windows_differ")):
        with pytest.raises(InputError) as told:
            series_of_each([first, first], times=times)
        assert told.value.violations[0].code == code


def test_drift_of_single_dumps_needs_three_before() -> None:
    """Too few to exchange: held against all before it, once there are three."""
    rng = np.random.default_rng(0)
    series = Series.of(dumps_of(rng.poisson([[900, 300, 100], [100, 300, 900]], (5, 2, 3))))
    found = [drift_of_next(series.windows[:number], series.windows[number]) for number in range(1, 5)]
    assert [drift.method for drift in found] == ["none", "none", "prediction", "prediction"]

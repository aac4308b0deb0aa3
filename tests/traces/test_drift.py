"""Drift between windows, and forecasts of loads."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders.series import domain_trace, dumps_of, sequence_loads
from traces import InputError, Series, Window, drift_between, forecast_counts, score_forecasts
from traces.series.forecasts import forecast


def tokens(rng: np.random.Generator, sequences: int) -> Window:
    """Return a window of sequences that can be exchanged."""
    loads = sequence_loads(rng, sequences)
    return Window(name="", time=None, load=loads.sum(axis=0), parts=loads)


def dump(rng: np.random.Generator) -> Window:
    """Return a window that is one dump of many sequences."""
    load = sequence_loads(rng, 40).sum(axis=0)
    return Window(name="", time=None, load=load, parts=load[None])


def test_false_alarms_of_sequences() -> None:
    """Where nothing changes, windows of sequences whose tokens are alike drift at the stated rate, and no more."""
    rng = np.random.default_rng(0)
    found = [drift_between([tokens(rng, 12)], [tokens(rng, 8)], alpha=0.1, seed=n) for n in range(120)]
    # 120 tests at a rate of .1: 12 in the mean, more than 20 in 1 of 100.
    assert sum(bool(each.drifted) for each in found) <= 20
    assert sum(bool(each.layer_drifted.any()) for each in found) <= 20
    # Tokens drawn by themselves would be far nearer: sequences are what spreads.
    assert all(each.method == "permutation" for each in found)


def test_false_alarms_of_dumps() -> None:
    """The same for single dumps, whose spread is known from earlier ones only."""
    rng = np.random.default_rng(0)
    found = [drift_between([dump(rng) for _ in range(4)], [dump(rng)], alpha=0.1) for _ in range(60)]
    assert all(each.method == "prediction" for each in found)
    assert sum(bool(each.drifted) for each in found) <= 12  # 6 in the mean, more than 12 in 1 of 100


def test_drift_is_seen_with_its_size() -> None:
    """Another domain is told from the same one, in every layer, and its size is that of the change."""
    series = Series.of(domain_trace(0, 2, 20), windows=4)
    first, other, same = (series.windows[number] for number in (0, 1, 2))
    moved, stayed = drift_between([first], [other]), drift_between([first], [same])
    assert moved.drifted
    assert moved.layer_drifted.all()
    assert moved.size == pytest.approx(np.abs(first.shares - other.shares).sum(axis=1).mean() / 2)
    assert stayed.noise is not None
    assert stayed.size < 2 * stayed.noise < moved.size


def test_too_little_to_tell() -> None:
    """Of two single dumps nothing is claimed but the size."""
    rng = np.random.default_rng(0)
    found = drift_between([dump(rng)], [dump(rng)])
    assert (found.drifted, found.p_value, found.method) == (None, None, "none")
    assert found.size > 0


def test_drift_of_dumps_is_seen() -> None:
    """A dump of other loads stands out from three that are alike."""
    rng = np.random.default_rng(0)
    other = dump(rng)
    turned = Window(name="", time=None, load=other.load[:, ::-1], parts=other.parts[:, :, ::-1])
    assert drift_between([dump(rng) for _ in range(3)], [turned]).drifted


def test_rate_is_checked() -> None:
    """A rate of false alarms that no test can keep is refused."""
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="alpha"):
        drift_between([dump(rng)], [dump(rng)], alpha=0.9)


def test_forecasts_are_what_they_say() -> None:
    """Last, means, and the hour of the day, on loads that a hand can follow."""
    shares = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[1.0, 0.0]]])
    assert forecast(shares, "last").tolist() == [[1.0, 0.0]]
    assert forecast(shares, "mean").tolist() == [[0.5, 0.5]]
    assert forecast(shares, "rolling") == pytest.approx(np.array([[1 / 3, 2 / 3]]))
    assert forecast(shares, "median").tolist() == [[0.0, 1.0]]  # of 0, 0, 1 and 1, 1, 0
    assert forecast(np.eye(3)[:, None], "median") == pytest.approx(np.full((1, 3), 1 / 3))  # none in two of three
    weights = 0.5 ** (np.array([3, 2, 1, 0]) / 2)
    assert forecast(shares, "decayed")[0, 0] == pytest.approx((weights[0] + weights[3]) / weights.sum())
    noon = 1_700_000_000 // 86_400 * 86_400 + 43_200.0
    times = noon + 43_200 * np.arange(4.0)  # noon, midnight, noon, midnight; next is noon
    assert forecast(shares, "hour_of_day", times).tolist() == [[0.5, 0.5]]
    assert forecast(shares[:2], "hour_of_day", times[:2]).tolist() == [[1.0, 0.0]]


def test_forecasts_are_scored_on_what_they_had_not_seen() -> None:
    """Loads that come and go by the hour are foretold by the hour, better than by both baselines."""
    day, night = np.array([[9.0, 1.0]]), np.array([[1.0, 9.0]])
    noon = 1_700_000_000 // 86_400 * 86_400 + 43_200.0
    loads = np.stack([day, night] * 4)
    scores = score_forecasts(Series.of(dumps_of(loads, times=noon + 43_200 * np.arange(8.0))))
    assert [scores[0].name, scores[0].beats_baselines] == ["hour_of_day", True]
    assert scores[0].error < 0.4 < max(score.error for score in scores)
    # Without times there is no hour, and it is refused where it is asked for.
    timeless = Series.of(dumps_of(loads))
    assert "hour_of_day" not in {score.name for score in score_forecasts(timeless)}
    with pytest.raises(InputError, match="1970"):
        forecast_counts(timeless, "hour_of_day")


def test_a_forecast_is_counts_to_plan_for() -> None:
    """What is expected next is a load matrix on the layers of the series."""
    counts = forecast_counts(Series.of(dumps_of(np.array([[[1.0, 3.0]], [[3.0, 1.0]]]))), "last")
    assert counts.load.tolist() == [[3.0, 1.0]]
    assert "last" in counts.provenance.notes[-1]

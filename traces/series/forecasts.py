"""Forecasts of the loads to come, each scored on windows that it had not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.series.drift import variation
from traces.series.series import Series
from traces.support.declared import check_word
from traces.support.errors import InputError
from traces.support.kinds import checked

__all__ = [
    "BASELINES",
    "Forecast",
    "ForecastScore",
    "best_forecast",
    "closest_window",
    "forecast",
    "forecast_counts",
    "score_forecasts",
]

Floats = npt.NDArray[np.float64]
Forecast = Literal["last", "mean", "rolling", "median", "decayed", "hour_of_day"]
BASELINES: Final = ("last", "mean")
ROLLING = 3  # windows, of the median too
HALF_LIFE = 2.0  # windows after which one counts half
EPOCH_SECONDS = 1e9  # times from which on they are seconds since 1970, whose hours are known
HOUR, DAY = 3600, 24


@dataclass(frozen=True, kw_only=True)
class ForecastScore:
    """How well a way to forecast did, one window ahead.

    Attributes
    ----------
    name : str
    error : float
        Total variation between forecast and what came, mean over layers and windows; 0 is right, 1 all wrong.
    windows : int
        Windows that were forecast: all but the first.
    beats_baselines : bool
        Whether it did better than the last window and than the mean of all before; False of these themselves.
    """

    name: Forecast
    error: float
    windows: int
    beats_baselines: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return dict(self.__dict__)


def forecast(shares: Floats, name: Forecast, times: Floats | None = None) -> Floats:
    """Return the shares to expect next, (L, E).

    Parameters
    ----------
    shares : (t, L, E) float64
        Of the windows so far, at least one.
    name : {"last", "mean", "rolling", "median", "decayed", "hour_of_day"}
        The last window; the mean of all or of the last three; the median of the last three, which one odd window does
        not change much; the mean of all with weights that halve every two windows; the mean of those of the same hour
        of the day (UTC), or of all where there is none.
    times : (t,) float64, optional
        Seconds since 1970, for the hour of the day; the next window is taken to come after the median step.
    """
    if name == "median":
        middle = np.median(shares[-ROLLING:], axis=0)
        total = middle.sum(axis=1, keepdims=True)
        mean = shares[-ROLLING:].mean(axis=0)  # of layers in which no expert is used in two of three
        known: Floats = np.divide(middle, total, out=mean, where=total > 0)
        return known
    weights = np.ones(len(shares))
    if name == "last":
        weights[:-1] = 0
    elif name == "rolling":
        weights[:-ROLLING] = 0
    elif name == "decayed":
        weights = 0.5 ** (np.arange(len(shares))[::-1] / HALF_LIFE)
    elif name == "hour_of_day" and (same := _same_hour(times)).any():
        weights = same.astype(np.float64)
    found: Floats = np.tensordot(weights / weights.sum(), shares, axes=1)
    return found


def closest_window(name: Forecast, count: int, times: Floats | None = None) -> int:
    """Return the window so far that a forecast takes to be most like the next one: the last, or that of its hour.

    Parameters
    ----------
    name : {"last", "mean", "rolling", "median", "decayed", "hour_of_day"}
    count : int
        Windows so far, at least one.
    times : (count,) float64, optional
        Seconds since 1970.
    """
    same = np.flatnonzero(_same_hour(times)).tolist() if name == "hour_of_day" else []
    return same[-1] if same else count - 1


def _same_hour(times: Floats | None) -> npt.NDArray[np.bool_]:
    if times is None or len(times) < 2:
        return np.zeros(0, np.bool_)
    following = times[-1] + np.median(np.diff(times))
    found: npt.NDArray[np.bool_] = (times // HOUR) % DAY == (following // HOUR) % DAY
    return found


def known_forecasts(times: Floats | None) -> tuple[Forecast, ...]:
    """Return the forecasts that can be made: the hour of the day only where times are seconds since 1970."""
    dated = times is not None and bool((times >= EPOCH_SECONDS).all())
    return tuple(name for name in get_args(Forecast) if dated or name != "hour_of_day")


def errors(shares: Floats, times: Floats | None) -> dict[Forecast, Floats]:
    """Return the error of each forecast of window 1, 2, ..., from those before it, (t - 1,)."""
    return {
        name: np.array(
            [
                variation(forecast(shares[:t], name, None if times is None else times[:t]), shares[t]).mean()
                for t in range(1, len(shares))
            ]
        )
        for name in known_forecasts(times)
    }


@checked
def score_forecasts(series: Series) -> tuple[ForecastScore, ...]:
    """Score every forecast on every window but the first, from the windows before it; the best first.

    Parameters
    ----------
    series : Series
    """
    found = errors(series.shares, series.times)
    means = {name: float(values.mean()) for name, values in found.items()}
    base = min(means[name] for name in get_args(Forecast) if name in BASELINES)
    scores = [
        ForecastScore(
            name=name,
            error=error,
            windows=len(series) - 1,
            beats_baselines=name not in BASELINES and error < base,
        )
        for name, error in means.items()
    ]
    return tuple(sorted(scores, key=lambda score: score.error))


def best_forecast(shares: Floats, times: Floats | None = None) -> Forecast:
    """Return the forecast that has done best on the windows so far, the mean of all where there is one window only."""
    if len(shares) < 2:
        return "mean"
    found = errors(shares, times)
    return min(found, key=lambda name: float(found[name].mean()))


@checked
def forecast_counts(series: Series, name: Forecast | None = None) -> LoadCounts:
    """Return the loads to expect after the last window as counts, which every solver takes.

    Parameters
    ----------
    series : Series
    name : {"last", "mean", "rolling", "median", "decayed", "hour_of_day"}, optional
        The one that has done best on the series, by default.

    Raises
    ------
    InputError
        If the hour of the day is asked for and the times are not known.
    """
    check_word("forecast", name, Forecast)
    times = series.times
    if name is not None and name not in known_forecasts(times):
        detail = "The times of the windows are not known in seconds since 1970."
        raise InputError.of("no_times", "/forecast", detail, "Choose another forecast.")
    chosen = name or best_forecast(series.shares, times)
    tokens = float(np.mean([window.load.sum(axis=1).mean() for window in series.windows]))
    loads = forecast(series.shares, chosen, times) * tokens
    return series.counts(loads, f"Forecast from {len(series)} windows: {chosen.replace('_', ' ')}.")

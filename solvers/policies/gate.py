"""The gate: whether a re-plan pays, told from windows that the plans in question had not seen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from placement import Plan
from solvers.policies.setting import Setting
from traces.series.forecasts import Forecast, best_forecast, forecast, known_forecasts

__all__ = ["Decision", "Gate", "Recipe"]

Floats = npt.NDArray[np.float64]
RECENT = 4  # windows of evidence at most: loads drift, so that older ones say less
LAYER_SIGMAS = 2.6  # layers err apart from each other: one error in two hundred
WINDOW_CHANCE = 0.1  # of an error by windows that differ, on top
FOLDS = 4
HYSTERESIS = 1.5  # what is gained over the horizon has to be so many times what it costs
LEAST_FORECAST = 3  # windows before two have been forecast from more than one
CAUTIOUS: Forecast = "mean"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a plan was made: from which windows, by which forecast.

    Attributes
    ----------
    name : str
    made : int
        Window before which it was made: it knows those below.
    """

    name: Forecast
    made: int


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate says at the beginning of a window.

    Attributes
    ----------
    recipe : Recipe or None
        Of the plan to take; None: leave it.
    plan : Plan or None
    gain_ms : float
        Per window, the lower end; of the best candidate where nothing is done.
    cost_ms : float
        Of the re-plan.
    windows : int
        For which the gain is expected.
    evidence : int
        Windows that were judged held out.
    """

    recipe: Recipe | None
    plan: Plan | None
    gain_ms: float
    cost_ms: float
    windows: int
    evidence: int

    @property
    def reason(self) -> str:
        """The decision in words."""
        if not self.evidence:
            return "nothing to judge a plan by yet"
        gain = f"{self.gain_ms / 1e3:.3g} s per window at least, judged on {self.evidence}"
        if not self.cost_ms:
            return f"no gain: {self.gain_ms / 1e3:.3g} s per window at least, judged on {self.evidence}"
        return f"gain {gain}, taken to last {self.windows}; cost {self.cost_ms / 1e3:.3g} s"


@dataclass(frozen=True, kw_only=True, eq=False)
class Gate:
    """Decides window by window; what it has made is kept.

    Attributes
    ----------
    setting : Setting
    """

    setting: Setting
    _plans: dict[Recipe, Plan] = field(default_factory=dict)

    def plan_of(self, recipe: Recipe) -> Plan:
        """Return the plan of a recipe."""
        if recipe not in self._plans:
            self._plans[recipe] = self.setting.plan(self._shares(recipe))
        return self._plans[recipe]

    def _shares(self, recipe: Recipe) -> Floats:
        times = self.setting.series.times
        known = None if times is None else times[: recipe.made]
        return forecast(self.setting.series.shares[: recipe.made], recipe.name, known)

    def decide(self, window: int, running: Plan, made: Recipe | None) -> Decision:
        """Say what to do at the beginning of a window, from those before.

        Parameters
        ----------
        window : int
            At least 1.
        running : Plan
        made : Recipe or None
            Of the running plan; None for the one that ran at first.
        """
        best: tuple[float, Decision] | None = None
        for name in self._candidates(window):
            recipe = Recipe(name=name, made=window)
            gain, evidence = self._gain(window, running, made, recipe)
            horizon = max(1, min(evidence, self.setting.request.horizon_windows))
            if gain <= 0:
                decision = Decision(
                    recipe=None, plan=None, gain_ms=gain, cost_ms=0.0, windows=horizon, evidence=evidence
                )
                net = gain * horizon
            else:
                target = self.setting.settled(running, self.plan_of(recipe))
                cost = self.setting.move(running, target).ms
                net = gain * horizon - HYSTERESIS * cost
                pays = net > 0
                decision = Decision(
                    recipe=recipe if pays else None,
                    plan=target if pays else None,
                    gain_ms=gain,
                    cost_ms=cost,
                    windows=horizon,
                    evidence=evidence,
                )
            if best is None or net > best[0]:
                best = net, decision
        assert best is not None
        return best[1]

    def _candidates(self, window: int) -> tuple[Forecast, ...]:
        """Return the forecasts to plan by; one only while parts of the last window are what they are judged by."""
        series = self.setting.series
        if window > LEAST_FORECAST:
            return known_forecasts(series.times)
        if window < LEAST_FORECAST:  # all are the same, or were on what they have forecast
            return (CAUTIOUS,)
        times = None if series.times is None else series.times[:window]
        return (best_forecast(series.shares[:window], times),)

    def _gain(self, window: int, running: Plan, made: Recipe | None, recipe: Recipe) -> tuple[float, int]:
        """Return the lower end of what a plan gains per window in ms, and how many windows say so."""
        gains = []
        for earlier in range(max(1, window - RECENT), window):
            old = self._like_running(window, earlier, running, made)
            if old is not None:
                new = self.plan_of(Recipe(name=recipe.name, made=earlier))
                gains.append(self.setting.step(old, earlier).layer_ms - self.setting.step(new, earlier).layer_ms)
        least = 1 if made is None else 2
        if len(gains) < least:
            gains = self._within(window - 1, running, made, recipe)
            if not gains:
                return 0.0, 0
            return _lower(np.stack(gains)) * self.setting.request.window_passes, 1
        found = np.stack(gains)
        lower = max(_lower(part) for part in (found, found[-2:]))  # the last two alone, for loads that have changed
        return lower * self.setting.request.window_passes, len(found)

    def _like_running(self, window: int, earlier: int, running: Plan, made: Recipe | None) -> Plan | None:
        """Return a plan that was to an earlier window what the running one is to this: as old, made in the same way."""
        if made is None:
            return running
        age = window - made.made
        if earlier - age >= 1:
            return self.plan_of(Recipe(name=made.name, made=earlier - age))
        return running if earlier > made.made else None

    def _within(self, last: int, running: Plan, made: Recipe | None, recipe: Recipe) -> list[Floats]:
        """Return gains on parts of the last window that plans of all else are judged by, (L,) each."""
        series = self.setting.series
        folds = _folds(series.windows[last].parts, self.setting.request.seed, alone=made is None)
        shares = series.shares[: last + 1].copy()
        times = None if series.times is None else series.times[: last + 1]
        gains = []
        for kept, held in folds:
            shares[last] = kept
            plan = self.setting.plan(forecast(shares, recipe.name, times))
            before, after = (self.setting.expected(each, held).layer_ms for each in (running, plan))
            gains.append(before - after)
        return gains


def _lower(gains: Floats) -> float:
    """Return the lower end of a gain per pass, of gains by window and layer, (n, L).

    Layers err apart from each other, by what they vary from window to window; windows that are of different kinds vary
    in all layers together. The wider of the two counts.
    """
    by_layer, count = gains.mean(axis=0), len(gains)
    mean, layers = float(by_layer.sum()), len(by_layer)
    if count == 1:  # what layers differ by is all that is known
        return mean - LAYER_SIGMAS * float(by_layer.std(ddof=1) if layers > 1 else abs(mean)) * float(np.sqrt(layers))
    apart = LAYER_SIGMAS * float(np.sqrt(gains.var(axis=0, ddof=1).sum() / count))
    together = (
        float(stdtrit(count - 1, 1 - WINDOW_CHANCE)) * float(gains.sum(axis=1).std(ddof=1)) / float(np.sqrt(count))
    )
    return mean - max(apart, together)


def _folds(parts: Floats, seed: int, *, alone: bool) -> list[tuple[Floats, Floats]]:
    """Return shares of most of a window and of the rest, several times over.

    Parts are held out where there are several. A single dump is split token by token where `alone`: that tells what
    chance does, but not how alike the tokens of a sequence are, which only a first plan, with all to gain, goes by.
    """
    if len(parts) > 1:
        folds = min(FOLDS, len(parts))
        held = [parts[fold::folds].sum(axis=0) for fold in range(folds)]
        total = parts.sum(axis=0)
        return [(_shares(total - one), _shares(one)) for one in held]
    if not alone or not len(parts):
        return []
    rng = np.random.default_rng(seed)
    whole = np.rint(parts[0]).astype(np.int64)
    one = rng.binomial(whole, 0.5)
    return [(_shares(whole - one), _shares(one)), (_shares(one), _shares(whole - one))]


def _shares(load: npt.NDArray[np.number]) -> Floats:
    total = load.sum(axis=1, keepdims=True)
    even = np.full(load.shape, 1 / load.shape[1])
    found: Floats = np.divide(load, total, out=even, where=total > 0)
    return found

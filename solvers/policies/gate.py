"""The gate: whether a re-plan pays, told from windows that the plans in question had not seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from placement import Plan
from solvers.policies.setting import Setting
from traces.series.forecasts import Forecast, best_forecast, forecast, known_forecasts

__all__ = ["Decision", "Gate", "Recipe"]

Floats = npt.NDArray[np.float64]
RECENT = 4  # windows of evidence at most: loads drift, so that older ones say less
LATEST = 2  # of these, for plans with fewer moves, which take long to make
SHRINKAGE = 2.0  # 1 would be the likeliest; the best of several forecasts looks better than it is. By trial
STUDENT = 0.95  # the quantile at which Student's distribution is held against the normal one
FOLDS = 4
HYSTERESIS = 2.0  # a gain over the horizon has to be so many times its cost: the best of several looks better. By trial
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
        Per window, as `_expected` takes it; of the best candidate where nothing is done.
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
        gain = f"{self.gain_ms / 1e3:.3g} s per window, judged on {self.evidence}"
        if not self.cost_ms:
            return f"no gain beyond what may be chance, judged on {self.evidence}"
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
    _ways: dict[tuple[bytes, Recipe], tuple[Plan, ...]] = field(default_factory=dict)

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
        offers = []
        for name in self._candidates(window):
            recipe = Recipe(name=name, made=window)
            gain, evidence = self._gain(window, running, made, recipe)
            offers.append((gain * self._horizon(evidence), gain, evidence, recipe))
        over, gain, evidence, recipe = max(offers, key=lambda offer: offer[0])
        told = Decision(
            recipe=None, plan=None, gain_ms=gain, cost_ms=0.0, windows=self._horizon(evidence), evidence=evidence
        )
        return told if over <= 0 else self._weighed(running, made, recipe, told)

    def _horizon(self, evidence: int) -> int:
        return max(1, min(evidence, self.setting.request.horizon_windows))

    def _weighed(self, running: Plan, made: Recipe | None, recipe: Recipe, told: Decision) -> Decision:
        """Return the decision on a recipe that gains: that of its plan, or of one with fewer moves, that saves most.

        One with fewer moves has to show its part of the gain on windows that its like had not seen; never more of it.
        """
        setting = self.setting
        offers = [(told.gain_ms, setting.settled(running, self.plan_of(recipe)))]
        if told.gain_ms * told.windows > HYSTERESIS * setting.stall_ms:
            parts = self._parts(recipe.made, running, made, recipe)
            ways = self._fewer(running, recipe) if parts else ()
            offers += [(part * told.gain_ms, plan) for part, plan in zip(parts, ways, strict=True)]
        best: tuple[float, Decision] | None = None
        for gain, plan in offers:
            move = setting.move(running, plan)
            net = gain * told.windows - HYSTERESIS * move.ms
            pays = net > 0 and move.slots > 0
            decision = replace(
                told,
                recipe=recipe if pays else None,
                plan=plan if pays else None,
                gain_ms=gain,
                cost_ms=move.ms,
            )
            if best is None or net > best[0]:
                best = net, decision
        assert best is not None
        return best[1]

    def _fewer(self, running: Plan, recipe: Recipe) -> tuple[Plan, ...]:
        key = (running.physical_to_logical_map.tobytes(), recipe)
        if key not in self._ways:
            target = self.setting.settled(running, self.plan_of(recipe))
            self._ways[key] = self.setting.fewer_moves(running, target, self._shares(recipe))
        return self._ways[key]

    def _parts(self, window: int, running: Plan, made: Recipe | None, recipe: Recipe) -> list[float]:
        """Return which part of a plan's gain those with fewer moves had before, each at most all; empty if unknown."""
        whole, fewer = 0.0, np.zeros(0)
        for earlier in range(max(1, window - LATEST), window):
            old = self._like_running(window, earlier, running, made)
            if old is None:
                continue
            like = Recipe(name=recipe.name, made=earlier)
            before, after, *ways = (
                float(self.setting.step(plan, earlier).layer_ms.sum())
                for plan in (old, self.plan_of(like), *self._fewer(old, like))
            )
            gained = before - np.array(ways)
            whole, fewer = whole + before - after, gained if not len(fewer) else fewer + gained
        if whole <= 0:
            return []
        parts: list[float] = np.clip(fewer / whole, 0.0, 1.0).tolist()
        return parts

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
        """Return what a plan is expected to gain per window in ms, and how many windows say so."""
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
            return _expected(np.stack(gains)) * self.setting.request.window_passes, 1
        found = np.stack(gains)
        gain = max(_expected(part) for part in (found, found[-2:]))  # the last two alone, for loads that have changed
        return gain * self.setting.request.window_passes, len(found)

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


def _expected(gains: Floats) -> float:
    """Return what a gain per pass is to be taken for, of gains by window and layer, (n, L).

    A mean m that errs by s is shrunk to m - 2 s^2 / m, nothing where that is below 0 (positive-part James and Stein):
    what is clear is taken as it is, what may be noise for nothing, and in between caution costs no more than it saves.
    A lower end would cost as much where a re-plan costs next to nothing. Layers err apart from each other; windows of
    different kinds vary in all layers together, of which few windows tell little, so that Student's factor widens it.
    The wider of the two counts.
    """
    by_layer, count = gains.mean(axis=0), len(gains)
    mean, layers = float(by_layer.sum()), len(by_layer)
    if mean <= 0:
        return mean
    if count == 1:  # what layers differ by is all that is known
        variance = layers * float(by_layer.var(ddof=1)) if layers > 1 else mean**2
    else:
        from scipy.special import stdtrit  # takes long to load

        wider = float(stdtrit(count - 1, STUDENT) / stdtrit(1e9, STUDENT)) ** 2
        variance = max(float(gains.var(axis=0, ddof=1).sum()), wider * float(gains.sum(axis=1).var(ddof=1))) / count
    return max(0.0, mean - SHRINKAGE * variance / mean)


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

"""The gate: whether a re-plan pays, told from what re-plans promised before and how much of it came true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from placement import Plan
from solvers.policies.setting import Setting
from traces.series.forecasts import Forecast, closest_window, forecast, known_forecasts
from traces.series.window import Window

__all__ = ["Decision", "Gate", "Recipe"]

Floats = npt.NDArray[np.float64]
FOLDS = 4
STUDENT = 0.95  # the quantile at which Student's distribution is held against the normal one
KEPT = 0.7  # of a promise comes true where nothing is known: loads stay as they are more often than not. By trial
KEPT_WINDOWS = 0.5  # that this counts for, of windows that promised as much: the first one outweighs it. By trial
KEPT_SHRINKAGE = 0.5  # of the part that came true, which differs little between forecasts. By trial
RECENT = 4  # windows of evidence at most: loads drift, so that older ones say less
LATEST = 2  # of these, for plans with fewer moves, which take long to make
HYSTERESIS = 1.5  # a gain has to be so many times its cost: the best of several looks better than it is. By trial


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """Part of a window, (L, E) shares, and the time by layer, (L,) ms, of a plan made from all but this part."""

    shares: Floats
    ms: Floats


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate says at the beginning of a window.

    Attributes
    ----------
    recipe : Recipe or None
        Of the plan to take; None: leave it.
    plan : Plan or None
    gain_ms : float
        Expected in the next window; of the best candidate where nothing is done.
    cost_ms : float
        Of the re-plan.
    windows : float
        Of such a gain that are expected in all.
    kept : float
        Part of what plans promise on the last window that is taken to come true in the next one.
    evidence : int
        Windows in which promises were seen to come true or not.
    """

    recipe: Recipe | None
    plan: Plan | None
    gain_ms: float
    cost_ms: float
    windows: float
    kept: float
    evidence: int

    @property
    def reason(self) -> str:
        """The decision in words."""
        if not self.gain_ms:
            return "no gain beyond what may be chance"
        seen = f"windows that tell: {self.evidence}" if self.evidence else "no window tells yet"
        gain = f"gain {self.gain_ms / 1e3:.3g} s per window, where {self.kept:.0%} of promises come true ({seen})"
        return f"{gain}; taken to last {self.windows:.2g}; cost {self.cost_ms / 1e3:.3g} s"


@dataclass(frozen=True, kw_only=True, eq=False)
class Gate:
    """Decides window by window; what it has made is kept.

    Attributes
    ----------
    setting : Setting
    """

    setting: Setting
    _plans: dict[Recipe, Plan] = field(default_factory=dict)
    _held_out: dict[Recipe, tuple[Held, ...]] = field(default_factory=dict)
    _ways: dict[tuple[bytes, Recipe], tuple[Plan, ...]] = field(default_factory=dict)

    def plan_of(self, recipe: Recipe) -> Plan:
        """Return the plan of a recipe."""
        if recipe not in self._plans:
            self._plans[recipe] = self.setting.plan(self._shares(recipe))
        return self._plans[recipe]

    def decide(self, window: int, ran: Sequence[Plan]) -> Decision:
        """Say what to do at the beginning of a window, from those before.

        Parameters
        ----------
        window : int
            At least 1.
        ran : sequence of Plan
            The plan of each window before, (window); the last one is the one that runs.
        """
        recipes = self._candidates(window)
        best = max((self._promised(recipe, ran) for recipe in recipes), key=lambda told: told.gain_ms * told.windows)
        return self._weighed(best, ran) if best.gain_ms else replace(best, recipe=None)

    def _candidates(self, window: int) -> list[Recipe]:
        """Return a recipe per forecast, one of those that say the same."""
        named = [Recipe(name=name, made=window) for name in known_forecasts(self._times(window))]
        return list({self._shares(recipe).tobytes(): recipe for recipe in reversed(named)}.values())[::-1]

    def _times(self, made: int) -> Floats | None:
        times = self.setting.series.times
        return None if times is None else times[:made]

    def _shares(self, recipe: Recipe) -> Floats:
        return forecast(self.setting.series.shares[: recipe.made], recipe.name, self._times(recipe.made))

    def _promised(self, recipe: Recipe, ran: Sequence[Plan]) -> Decision:
        """Return what a plan is expected to gain: what it promises, times the part of such promises that came true.

        Promises are against the plan that ran in each window before; what is known beforehand is one more of them.
        """
        passes = self.setting.request.window_passes
        judged = self._judged(recipe)
        several = len(self.setting.series.windows[judged].parts) > 1
        promise = passes * _expected(self._gains(recipe, ran[-1]), together=several)
        if promise <= 0:
            return Decision(recipe=recipe, plan=None, gain_ms=0.0, cost_ms=0.0, windows=0.0, kept=0.0, evidence=0)
        said, came = [KEPT_WINDOWS**0.5 * promise], [KEPT_WINDOWS**0.5 * promise * KEPT]
        # Before window 1 all forecasts are the same one, so what came of it tells nothing of this one.
        for earlier in range(max(2, recipe.made - RECENT), recipe.made):
            like, old = Recipe(name=recipe.name, made=earlier), ran[earlier - 1]
            gained = self.setting.step(old, earlier).layer_ms - self.setting.step(self.plan_of(like), earlier).layer_ms
            said.append(passes * float(self._gains(like, old).sum(axis=1).mean()))
            came.append(passes * float(gained.sum()))
        kept = _kept(np.array(said), np.array(came))
        lasting = (
            self.setting.request.horizon_windows if judged == recipe.made - 1 else 1
        )  # another hour comes after it
        windows = sum(kept**age for age in range(lasting))
        return Decision(
            recipe=recipe,
            plan=None,
            gain_ms=kept * promise,
            cost_ms=0.0,
            windows=windows,
            kept=kept,
            evidence=len(said) - 1,
        )

    def _gains(self, recipe: Recipe, old: Plan) -> Floats:
        """Return what a recipe gains per pass on parts of the window it is judged by, each held out, (n, L)."""
        if recipe not in self._held_out:
            self._held_out[recipe] = self._held(recipe)
        return np.stack([self.setting.expected(old, held.shares).layer_ms - held.ms for held in self._held_out[recipe]])

    def _judged(self, recipe: Recipe) -> int:
        return closest_window(recipe.name, recipe.made, self._times(recipe.made))

    def _held(self, recipe: Recipe) -> tuple[Held, ...]:
        series, judged = self.setting.series, self._judged(recipe)
        shares = series.shares[: recipe.made].copy()
        found = []
        for kept, held in _folds(series.windows[judged], self.setting.request.seed):
            shares[judged] = kept
            plan = self.setting.plan(forecast(shares, recipe.name, self._times(recipe.made)))
            found.append(Held(shares=held, ms=self.setting.expected(plan, held).layer_ms))
        return tuple(found)

    def _weighed(self, told: Decision, ran: Sequence[Plan]) -> Decision:
        """Return the decision on a recipe that gains: that of its plan, or of one with fewer moves, that saves most.

        One with fewer moves has to show its part of the gain on windows that its like had not seen; never more of it.
        """
        setting, running, recipe = self.setting, ran[-1], told.recipe
        assert recipe is not None
        offers = [(told.gain_ms, setting.settled(running, self.plan_of(recipe)))]
        if told.gain_ms * told.windows > HYSTERESIS * setting.stall_ms:
            parts = self._parts(recipe, ran)
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

    def _parts(self, recipe: Recipe, ran: Sequence[Plan]) -> list[float]:
        """Return which part of a plan's gain those with fewer moves had before, each at most all; empty if unknown."""
        whole, fewer = 0.0, np.zeros(0)
        for earlier in range(max(1, recipe.made - LATEST), recipe.made):
            like, old = Recipe(name=recipe.name, made=earlier), ran[earlier - 1]
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


def _expected(gains: Floats, *, together: bool) -> float:
    """Return what a gain per pass is to be taken for, of gains by part of a window and layer, (n, L).

    A mean m that errs by s is shrunk to m - s^2 / m, nothing where that is below 0 (positive-part James and Stein):
    what is clear is taken as it is, what may be noise for nothing, and in between caution costs no more than it saves.
    A lower end would cost as much where a re-plan costs next to nothing. Layers err apart from each other; sequences
    of different kinds vary in all layers `together`, of which few parts tell little, so that Student's factor widens
    it. The wider of the two counts.
    """
    count, mean = len(gains), float(gains.mean(axis=0).sum())
    if mean <= 0:
        return mean
    variance = float(gains.var(axis=0, ddof=1).sum())
    if together:
        from scipy.special import stdtrit  # takes long to load

        wider = float(stdtrit(count - 1, STUDENT) / stdtrit(1e9, STUDENT)) ** 2
        variance = max(variance, wider * float(gains.sum(axis=1).var(ddof=1)))
    return max(0.0, mean - variance / count / mean)


def _kept(said: Floats, came: Floats) -> float:
    """Return which part of promises comes true, 0 to 1, of promises and gains by window, (n), the first one assumed.

    A regression through the origin, so that windows count by the squares of what they promised, shrunk by what it errs
    by, as a gain is: the larger the more these windows differ.
    """
    weight = float((said**2).sum())
    kept = min(float((said * came).sum()) / weight, 1.0)
    if kept <= 0:
        return 0.0
    if len(said) == 1:
        return kept
    variance = float(((came - kept * said) ** 2).sum()) / (len(said) - 1) / weight
    return max(0.0, kept - KEPT_SHRINKAGE * variance / kept)


def _folds(window: Window, seed: int) -> list[tuple[Floats, Floats]]:
    """Return shares of most of a window and of the rest, several times over.

    Parts are held out where there are several. A single dump is split token by token, into halves: that tells what
    chance does, but not how alike the tokens of a sequence are, which shows in what comes true.
    """
    if len(window.parts) > 1:
        folds = min(FOLDS, len(window.parts))
        held = [window.parts[fold::folds].sum(axis=0) for fold in range(folds)]
        total = window.parts.sum(axis=0)
        return [(_shares(total - one), _shares(one)) for one in held]
    whole = np.rint(window.load).astype(np.int64)
    one = np.random.default_rng(seed).binomial(whole, 0.5)
    return [(_shares(whole - one), _shares(one)), (_shares(one), _shares(whole - one))]


def _shares(load: npt.NDArray[np.number]) -> Floats:
    total = load.sum(axis=1, keepdims=True)
    even = np.full(load.shape, 1 / load.shape[1])
    found: Floats = np.divide(load, total, out=even, where=total > 0)
    return found

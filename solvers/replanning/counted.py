"""Plans judged in milliseconds where only loads are known: by the pass that counts lead one to expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement import Plan
from placement.advice.judging import CONFIDENCE, OF_EXPERTS
from placement.time import TimeModel
from placement.time.expected import expected_pass
from solvers.replanning.judging import Judged
from traces import Profile

__all__ = ["CountsTimeMeasure", "shares_of"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class CountsTimeMeasure:
    """Milliseconds of an expected pass.

    Real passes are less even than the expected one, under any plan.

    Attributes
    ----------
    time : TimeModel
    fit, held : (L, E) float64
        Shares of each layer's load.
    groups : tuple of (L, E) float64
        Shares in dumps, or parts of the counts, that vary as other traffic would.
    choices : float
        Assignments of a layer that are held out.
    """

    time: TimeModel
    fit: Floats
    held: Floats
    groups: tuple[Floats, ...]
    choices: float

    in_time = True
    least_groups = 3  # fewer dumps show nothing about others

    @property
    def unit(self) -> str:
        """Of the values."""
        return "ms per step"

    def fitted(self, plan: Plan) -> float:
        """Return the step on the fitted part."""
        return self._step_ms(plan, self.fit)

    def gain(self, before: float, after: float) -> float:
        """Return a gain as a fraction of the step."""
        return 1 - after / before

    def judge(self, before: Plan, after: Plan) -> Judged:
        """Compare two plans on what is held out.

        The interval is Student's t over the groups, and widened by the time model's error of what plans differ by.
        """
        from scipy.special import stdtrit  # takes long to load

        old, new = (self._step_ms(plan, self.held) for plan in (before, after))
        apart = [self.gain(self._step_ms(before, part), self._step_ms(after, part)) for part in self.groups]
        fraction, half = self.gain(old, new), float("inf")
        level = (1 + CONFIDENCE) / 2
        if len(apart) > 1:
            half = float(stdtrit(len(apart) - 1, level) * np.std(apart, ddof=1) / np.sqrt(len(apart)))
        model = float(stdtrit(1e9, level)) * OF_EXPERTS * abs(fraction)
        wide = float(np.hypot(half, model))
        return Judged(
            before=old,
            after=new,
            fraction=fraction,
            interval=(fraction - wide, fraction + wide),
            half=half,
            groups=len(apart),
            per_expert=self.choices / self.held.shape[1],
        )

    def _step_ms(self, plan: Plan, shares: Floats) -> float:
        time = self.time
        top_k = time.model.shape.top_k
        load = expected_pass(plan, shares, tokens=time.pass_tokens, top_k=top_k, dedup=time.dedup)
        return time.step_ms(time.layer_times(load))


def shares_of(profile: Profile) -> Floats:
    """Return the share of each layer's load by expert, (L, E)."""
    load = np.asarray(profile.load, np.float64)
    shares: Floats = load / load.sum(axis=1, keepdims=True)
    return shares

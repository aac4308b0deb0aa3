"""What times plans: a sample of forward passes, and the time model of the deployment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from placement import Plan
from placement.advice.sample import PassSample
from placement.advice.timing import PassTimes, PlanOnPasses, mean_step_ms
from placement.problem.objective import SettledObjective
from placement.time import TimeModel

__all__ = ["FITTED", "QUICK", "QUICK_WORK", "Judge"]

FITTED: Final = 8  # passes that candidates are chosen by
QUICK: Final = "load_balance"  # milliseconds, and the best balance that there is without regard to messages
QUICK_WORK: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Times plans on a sample of passes.

    Attributes
    ----------
    time : TimeModel
    sample : PassSample
    travel : SettledObjective
        How tokens travel.
    """

    time: TimeModel
    sample: PassSample
    travel: SettledObjective

    def times(self, plan: Plan) -> PassTimes:
        """Return the times of the passes under a plan."""
        return PlanOnPasses(plan, self.sample, self.time, self.travel).times()

    def step_ms(self, plan: Plan) -> float:
        """Return the mean time of a step."""
        return mean_step_ms(self.time, self.times(plan))

"""Steps of a plan in milliseconds on the tokens of each domain, where machine and model are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from placement import Plan, Problem
from placement.advice.sample import sample_passes
from placement.advice.timing import PlanOnPasses, mean_step_ms
from placement.time import TimeModel
from placement.time.step import check_fit, travel_in_steps
from solvers.mixtures.domains import Domain
from traces.support.words import Phase

__all__ = ["step_times"]


def step_times(
    time: TimeModel, phase: Phase, problem: Problem, plans: Mapping[str, Plan], domains: Sequence[Domain]
) -> dict[str, list[float]]:
    """Return the mean time of a forward pass of held-out tokens, by plan and domain, in ms.

    Parameters
    ----------
    time : TimeModel
    phase : {"prefill", "decode"}
    problem : Problem
        Its engine says how tokens travel.
    plans : mapping of str to Plan
    domains : sequence of Domain

    Raises
    ------
    InputError
        If plans, machine and model don't fit.
    """
    first = domains[0].held_out
    travel = travel_in_steps(first, time, problem.engine, None, None, None)
    check_fit(next(iter(plans.values())), first, time)
    samples = [sample_passes(domain.held_out, time.pass_tokens, phase) for domain in domains]
    return {
        name: [mean_step_ms(time, PlanOnPasses(plan, sample, time, travel).times()) for sample in samples]
        for name, plan in plans.items()
    }

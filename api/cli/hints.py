"""Sentences beside the figures: a plan that unbalances, a search that took far longer than its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from placement import Problem
    from solvers import Solution

__all__ = ["balance_hint", "overtime_note"]


def overtime_note(problem: Problem, solution: Solution, time_s: float | None) -> str | None:
    """Return a note where a search took far longer than its limit: its first steps are not cut short."""
    if time_s is None or solution.elapsed_s <= 2 * time_s + 1:
        return None
    return (
        f"The search took {solution.elapsed_s:.1f} s for a limit of {time_s:g} s: with {problem.num_experts} experts "
        f"on {problem.num_gpus} GPUs, the first bound and the first plans take that long, and are not cut short."
    )


def balance_hint(summary: dict[str, Any]) -> str | None:
    """Return a hint where a plan without a load cap is less balanced than no plan at all.

    Parameters
    ----------
    summary : dict
        As `solvers.Comparison.as_dict` gives it, with a plan named ``plan``.
    """
    plans, baseline = summary["plans"], summary.get("baseline", "contiguous")
    capped = summary["load_cap"] is not None or summary["layer_load_caps"]
    if capped or baseline not in plans or "plan" not in plans:
        return None
    name = "imbalance_max_over_mean"
    before, after = (plans[plan]["expected_load"][name] for plan in (baseline, "plan"))
    if after <= before * (1 + 1e-6):
        return None
    return (
        f"Without a load cap, the busiest GPU gets {after:.2f} times the mean load ({baseline}: {before:.2f}), "
        "which slows every layer down. To keep the GPUs balanced, plan with --load-cap 1.05."
    )

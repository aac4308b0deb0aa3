"""What it costs to survive: plans that lose ever more experts to a failure, down to one that need not survive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from placement import Plan, Problem
from solvers.fronts.search import FrontSearch
from solvers.requests.request import Against
from traces import Violations

__all__ = ["by_survival", "check_survival"]


def check_survival(problem: Problem, start: Plan | None, against: Against, found: Violations) -> None:
    """Record what is to survive where it can't be weighed, and what is missing or too much where it is weighed."""
    asked = problem.constraints.survive
    if against == "bytes_moved" and asked is not None:
        detail = "Few moves are searched for by pinning all that stays, which may leave no room for what is to survive."
        remedy = "Leave it out, weigh against something else, or ask `replan`, which keeps it."
        found.add("survive_beside", "/constraints/survive", detail, remedy)
    if against != "survival":
        return
    if asked is None:
        detail = "What fails is not said."
        found.add("survive_missing", "/constraints/survive", detail, "Give survive: nodes=1, say.")
    elif asked.failures > 1:
        detail = f"Losses are weighed for one failure at a time, but {asked.failures} fail."
        found.add("failures_range", "/constraints/survive/failures", detail, "Let one fail.")
    if start is not None:
        detail = "Every point begins with a plan that loses as few experts as it may."
        found.add("without_effect", "/start", detail, "Leave the start out.")


def by_survival(run: FrontSearch, points: int) -> None:
    """Search without the rule, under the tightest one, and in even steps between."""
    problem, constraints = run.problem, run.problem.constraints
    asked, rule = constraints.survive, problem.sizes.survival
    assert asked is not None
    assert rule is not None
    # Scored under a rule that all keep, so that it is known what each loses.
    all_keep = replace(constraints, survive=replace(asked, lost=problem.num_experts))
    own = replace(problem, constraints=all_keep)
    free = replace(problem, constraints=replace(constraints, survive=None))
    run.search(own, free, {"against": "survival"}, needed=True, fresh=True)
    most = max((item.lost_experts or 0 for item in run.pool), default=0)
    for lost in np.unique(np.linspace(rule.lost, max(most - 1, rule.lost), max(points - 1, 1)).astype(int)).tolist():
        tighter = replace(problem, constraints=replace(constraints, survive=replace(asked, lost=lost)))
        note = {"against": "survival", "lost": lost}
        run.search(own, tighter, note, needed=lost == rule.lost, fresh=True)

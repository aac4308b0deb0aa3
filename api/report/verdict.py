"""Sentences on a plan: what was planned, how good it is, and whether it beats what happens when nobody plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.report.figures import LOAD, NOTICEABLE, Change, change_of, evaluations_of, parts_of, shown_figures, tokens_of

if TYPE_CHECKING:
    from placement import Problem
    from solvers import Solution
    from solvers.judging.comparing import Comparison, Judged
    from solvers.study import Study

__all__ = [
    "PARTS",
    "UNITS",
    "bound_words",
    "engine_note",
    "headline",
    "plan_row",
    "score_words",
    "side_note",
    "time_note",
    "verdict",
]

# Of score, bound and what else is a score, by whether time is what is minimised.
UNITS = {True: "ms per forward pass", False: "weighted hop cost and load"}
PARTS = {"fit": "fitted", "held_out": "held-out"}
# A bound of a tenth of the score or less says that the search could not bound the problem, not that the plan is bad.
USEFUL_BOUND = 0.1
STOPPED = {
    None: "ran to its end",
    "time": "stopped by the time limit",
    "work": "stopped by the work limit",
    "gap": "gap reached",
    "no_improvement": "stopped improving",
    "cancelled": "stopped by hand",
}
QUALITY = {"optimal": "Best possible plan,", "infeasible": "Plan that misses its load cap (see the warnings),"}


NO_ENGINE = (
    "No engine was named: tokens are taken to go straight from one layer's experts to the next (ExFlow). "
    "Most engines send them home after every layer: plan with --engine NAME."
)


def engine_note(study: Study) -> str | None:
    """Return what is assumed where nobody said how tokens travel, and how to change it."""
    told = study.problem.engine is not None or study.request.objective.execution is not None
    by_load = study.problem.objective.execution == "dispatch"  # of counts, as a note says
    return None if told or by_load else NO_ENGINE


def headline(problem: Problem, solution: Solution) -> str:
    """Return a line on the problem, one on the search and one on how good the plan is."""
    plan, termination = solution.plan, solution.termination
    found_by = plan.provenance.get("found_by") or plan.provenance.get("solver", "an unknown solver")
    return (
        f"{problem.num_layers} layers of {problem.num_experts} experts on {problem.topology.name} "
        f"({problem.num_gpus} GPU{'s' if problem.num_gpus > 1 else ''}, {problem.slots_per_gpu} slots each).\n"
        f"{QUALITY.get(termination.reason, 'Plan')} by {found_by} after {solution.elapsed_s:.1f} s "
        f"({STOPPED[termination.limit]}).\n"
        f"{_reached(solution)}{bound_words(solution)}."
    )


def _reached(solution: Solution) -> str:
    if solution.score.timed:
        return f"A forward pass of the fitted tokens takes {score_words(solution.score.total)} ms"
    return f"Score {score_words(solution.score.total)}"


def time_note(before: Judged | None, row: Judged) -> str | None:
    """Return milliseconds of a forward pass before and after, by part; None where time was not asked for."""
    if not row.step_ms:
        return None
    found = []
    for part, after in row.step_ms.items():
        was = None if before is None else before.step_ms.get(part)
        text = f"{after:.4g} ms" if was is None else f"{was:.4g} -> {after:.4g} ms ({100 * (after / was - 1):+.1f} %)"
        found.append(f"{text} on {PARTS.get(part, part)} tokens")
    return f"A forward pass: {', '.join(found)}."


def score_words(score: float) -> str:
    """Return a score with four significant digits."""
    return f"{score:#.4g}" if score else "0"


def bound_words(solution: Solution) -> str:
    """Return how far the plan can be from the best one, as far as the bound says something."""
    plan, score = solution.plan, solution.score.total
    if plan.bound is None or plan.gap is None or plan.bound <= USEFUL_BOUND * score:
        return "" if solution.termination.reason == "optimal" else "; no useful bound on what the best plan reaches"
    if solution.termination.reason == "optimal":
        return ""
    below = f"no plan takes less than {score_words(plan.bound)} ms"
    if not solution.score.timed:
        below = f"no plan scores below {score_words(plan.bound)}"
    return f"; {below} (gap {100 * plan.gap:.1f} %)"


def plan_row(comparison: Comparison, solution: Solution) -> Judged:
    """Return the row of the plan that was found."""
    for row in comparison.rows:
        if row.plan is solution.plan:
            return row
    return comparison.rows[-1]


def side_note(comparison: Comparison, before: Judged | None) -> str:
    """Return what is before, what is after, and how many tokens are behind the figures."""
    dumps = comparison.rows[0].dumps if comparison.rows else ()
    if dumps:
        parts = list(dict.fromkeys(dump.part for dump in dumps))
        numbers = [f"{sum(dump.part == part for dump in dumps)} {PARTS.get(part, part)}" for part in parts]
        tokens = f"the counts of {' and '.join(numbers)} dumps alone: traffic needs a trace with tokens"
        return _sides(comparison, before, tokens)
    parts = [part for part in parts_of(comparison) if part is not None]
    counted = [f"{tokens_of(comparison, part):,} {PARTS.get(part, part)}" for part in parts]
    tokens = f"{' and '.join(counted)} tokens" if counted else "counts alone: traffic needs a trace with tokens"
    return _sides(comparison, before, tokens)


def _sides(comparison: Comparison, before: Judged | None, tokens: str) -> str:
    if before is None:
        return (
            f"From {tokens}. No {comparison.baseline} plan keeps the constraints: there is nothing to compare it with."
        )
    return f"Before: {before.name}; after: the plan. From {tokens}."


def verdict(comparison: Comparison, row: Judged) -> str:
    """Say whether a plan is better than the baseline, on tokens that it has not seen if there are any, and by what.

    Parameters
    ----------
    comparison : Comparison
        With a baseline.
    row : Judged
        Another row of it.
    """
    before = comparison[comparison.baseline]
    part = parts_of(comparison)[-1]  # held out, if anything is
    changes = _changes(comparison, before, row, part)
    where = comparison.baseline
    if part in row.counts:
        where += f" by expected loads of the {PARTS.get(part, part)} dumps"
    else:
        where += " by expected loads" if part is None else f" on {PARTS.get(part, part)} tokens"
    better, worse = ([item for item in changes if item.sign == sign] for sign in (-1, 1))
    gains, losses = (_sentence(comparison, before, row, part, found) for found in (better, worse))
    if better and worse:
        text = f"Better than {where} in one way and worse in another: {gains}, but {losses}. "
        text += _by_score(before, row)
    elif better:
        text = f"Better than {where}: {gains}."
    elif worse:
        text = f"Worse than {where}: {losses}."
    else:
        text = f"No different from {where}: no figure changes by more than {100 * NOTICEABLE:g} %."
    fitted = _changes(comparison, before, row, "fit") if part == "held_out" and "fit" in row.parts else []
    seen = [item.sign for item in fitted]
    if not better and -1 in seen and 1 not in seen:
        text += " On the fitted tokens it is better: the plan suits them more than the model; fit it to more tokens."
    return text


def _changes(comparison: Comparison, before: Judged, row: Judged, part: str | None) -> list[Change]:
    """Return what decides: the traffic by its cost, the busiest GPU, and activated experts where they are counted."""
    found = evaluations_of((before, row), part)
    figures = shown_figures(comparison.problem, found)
    if found:
        traffic = figures[: [item.name for item in figures].index(LOAD.name)]
        # Where hops differ, their cost weighs GPUs against nodes; else all of these tell the same.
        figures = [*traffic[-1:], *(item for item in figures if item.name in (LOAD.name, "activated_experts"))]
    changes = (change_of(before, row, part, figure) for figure in figures)
    return [item for item in changes if item is not None]


def _sentence(comparison: Comparison, before: Judged, row: Judged, part: str | None, found: list[Change]) -> str:
    texts = []
    for item in found:
        if item.figure.name != "traffic":
            texts.append(item.words)
            continue
        relative = item.relative or 0.0
        text = f"traffic costs {100 * abs(relative):.1f} % {'less' if item.sign < 0 else 'more'}"
        details = _details(comparison, before, row, part)
        texts.append(f"{text} ({details})" if details else text)
    return ", ".join(texts)


def _details(comparison: Comparison, before: Judged, row: Judged, part: str | None) -> str:
    """Return how the crossings behind the traffic's cost change."""
    problem = comparison.problem
    found = evaluations_of((before, row), part)
    names = ("remote_nodes", "remote_gpus", "cross_node_fraction", "cross_gpu_fraction")
    figures = [item for item in shown_figures(problem, found) if item.name in names]
    changes = (change_of(before, row, part, figure) for figure in figures[-2:])  # of messages, where each is paid for
    return ", ".join(item.words for item in changes if item is not None and item.sign)


def _by_score(before: Judged, row: Judged) -> str:
    """Return what the score says where the figures disagree."""
    both = f"{score_words(row.score)} instead of {score_words(before.score)}"
    if abs(row.score - before.score) <= NOTICEABLE * abs(before.score):
        return f"The score, which weighs them, hardly tells them apart ({both})."
    return f"The score, which weighs them, is {'better' if row.score < before.score else 'worse'} ({both})."

"""Whether the plan that a search in milliseconds has found is worth it, on the tokens that it has not seen."""

from __future__ import annotations

from placement import Plan
from placement.advice.sample import MAX_PASSES
from solvers.advising.advice import Advice
from solvers.advising.judged import Change, advice_of
from solvers.study import Study
from solvers.timed.searching import judge_of
from traces import InputError
from traces.support.kinds import checked

__all__ = ["advice_on"]


@checked
def advice_on(study: Study, plan: Plan) -> Advice:
    """Return the advice on a plan of a study in milliseconds, without alternatives.

    Before is the plan that the study starts from, else the engine's own layout.

    Parameters
    ----------
    study : Study
        With time as its objective.
    plan : Plan
        That was found.

    Raises
    ------
    InputError
        If the study has no machine and model, or nothing keeps its constraints before.
    """
    if not study.request.time:
        detail = "Nothing says what a step takes: the study has no machine and no model."
        raise InputError.of("field_missing", "/time", detail, "Give time=Timed(machine=..., model=...).")
    running = study.request.start or study.baseline
    part = study.fit if study.held_out is None else study.held_out
    if running is None or part is None:
        detail = "The engine's own layout breaks a rule of the problem."
        raise InputError.of("no_plan_runs", "/start", detail, "Give the plan that runs now as start.")
    held = judge_of(study.problem, part, study.request.time, MAX_PASSES)
    change = Change.of(
        running,
        plan,
        method=str(plan.provenance.get("found_by") or plan.provenance.get("solver", "an unknown solver")),
        trace=part,
        held=held,
        held_out=study.held_out is not None,
        seed=study.request.seed,
    )
    return advice_of(change, (), held.time.notes, study.problem.engine)

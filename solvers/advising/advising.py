"""Advice on a trace: what runs, what was found, both timed on tokens held out, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from placement.advice.sample import sample_passes
from placement.advice.without_ep import Alternative, weights_gb
from placement.time.step import check_fit, travel_in_steps
from solvers.advising.advice import Advice
from solvers.advising.candidates import best_plan
from solvers.advising.judged import Change, advice_of
from solvers.advising.others import Setting, alternatives
from solvers.advising.request import AdviceRequest
from solvers.judging.judge import FITTED, Judge
from solvers.sources.parts import Named
from solvers.sources.source import open_source
from solvers.study import Study
from traces import InputError, LoadCounts, Profile, Trace
from traces.phases import has_phase, phase_or_all
from traces.support.kinds import check_names, checked
from traces.support.words import Phase

__all__ = ["advise", "advise_phase", "request_of_advice", "tokens_of"]

Tell = Callable[[str], None]


def _silent(_: str) -> None:
    pass


@checked
def advise(
    source: Named,
    *,
    request: AdviceRequest | None = None,
    workers: int | None = None,
    tell: Tell = _silent,
    **asked: Any,
) -> Advice:
    """Say whether a change of placement is worth it in one phase, and what else could be done.

    The plan is found on one part of the trace and judged on the other, which it has never seen, against the plan that
    runs, on the same forward passes.

    Parameters
    ----------
    source : Trace or path
        With token identity: counts can't tell who waits for whom.
    request : AdviceRequest, optional
        In place of `asked`.
    workers : int, optional
        Threads of searches; all available cores by default.
    tell : callable
        Gets what is being done, in words.
    **asked
        Fields of `AdviceRequest`: machine, model, phase, tokens_per_gpu, engine, plan and others.

    Raises
    ------
    InputError
        If the source, the request, machine, model and plan do not fit each other.
    NoPlanError
        If no plan was found.

    Examples
    --------
    >>> advise("trace.npz", machine="h200:4x8", model="deepseek-v3", engine="sglang").verdict  # doctest: +SKIP
    'not_worth_it'
    """
    request = request_of_advice(request, asked)
    if request.phase == "both":
        detail = "Advice is for one phase."
        raise InputError.of("two_phases", "/phase", detail, "Use solvers.advise_both, or name a phase.")
    return advise_phase(tokens_of(source), request, request.phase, workers=workers, tell=tell)[0]


def request_of_advice(request: AdviceRequest | None, asked: dict[str, Any]) -> AdviceRequest:
    """Return a request that was given whole, or by its fields."""
    if request is None:
        check_names(asked, AdviceRequest, "an advice")
        missing = [name for name in ("machine", "model") if name not in asked]
        if missing:
            detail = f"An advice needs a {' and a '.join(missing)}."
            raise InputError.of("field_missing", f"/{missing[0]}", detail, "Give 'h200:4x8' and 'deepseek-v3', say.")
        return AdviceRequest(**asked)
    if asked:
        detail = "A request says everything already."
        raise InputError.of("request_twice", "/request", detail, "Give the request or its fields, not both.")
    return request


def tokens_of(source: Named) -> Trace:
    """Return the tokens of a source; refuse one that has none."""
    opened = source if isinstance(source, Trace | LoadCounts | Profile) else open_source(source)
    if isinstance(opened, Trace):
        return opened
    detail = "Time needs tokens, in passes: it holds counts, or statistics."
    raise InputError.of("counts_only", "/trace", detail, "Give a trace with token identity (topk_ids).")


def advise_phase(
    trace: Trace, request: AdviceRequest, phase: Phase, *, workers: int | None = None, tell: Tell = _silent
) -> tuple[Advice, Judge]:
    """Return the advice on one phase, see `advise`, and what times plans on the tokens held out."""
    time = request.time_model(phase)
    tell("reading and profiling")
    chosen, phase_note = phase_or_all(trace, phase)
    study = Study.of(chosen, request=request.planning(time), workers=workers)
    assert study.fit is not None  # a trace has tokens
    running = request.plan or study.baseline
    if running is None:
        detail = "The engine's own layout breaks a rule of the problem."
        raise InputError.of("no_plan_runs", "/plan", detail, "Give the plan that runs now.")
    check_fit(running, chosen, time)
    travel = travel_in_steps(chosen, time, study.problem.engine, None, None, None)
    fit = Judge(time=time, sample=sample_passes(study.fit, time.pass_tokens, phase, max_passes=FITTED), travel=travel)
    found, method = best_plan(
        study.problem,
        fit,
        running,
        solver=request.solver,
        limits=request.limits,
        seed=request.seed,
        workers=workers,
        tell=tell,
    )
    tell("timing on tokens held out")
    part = study.fit if study.held_out is None else study.held_out
    held = Judge(time=time, sample=sample_passes(part, time.pass_tokens, phase), travel=travel)
    held_out = study.held_out is not None
    change = Change.of(running, found, method=method, trace=chosen, held=held, held_out=held_out, seed=request.seed)
    rows: tuple[Alternative, ...] = ()
    if request.alternatives:
        setting = Setting(
            problem=study.problem,
            judge=held,
            fit=fit,
            running=running,
            found=found,
            step_ms_before=change.gain.step_ms_before,
            step_ms_after=change.gain.step_ms_after,
        )
        rows = alternatives(setting, _separate_phases(setting, trace, phase, request, workers), tell)
    return advice_of(change, rows, (*time.notes, *phase_note), study.problem.engine), held


def _separate_phases(
    setting: Setting, trace: Trace, phase: Phase, request: AdviceRequest, workers: int | None
) -> Alternative:
    """Time a plan that is made for both phases: what the phase's own plan gains over it is what separate ones buy."""
    other: Phase = "decode" if phase == "prefill" else "prefill"
    name = "separate_phases"
    if "phase" not in trace.columns or not (has_phase(trace, phase) and has_phase(trace, other)):
        detail = "A plan per phase needs a trace with tokens of both; this one has one phase, or tells none."
        return setting.told(name, None, None, detail)
    time = setting.judge.time
    study = Study.of(trace, request=request.planning(time), workers=workers)
    try:
        mixed = study.solve("load_balance", options={}, workers=1).plan
    except InputError:
        return setting.told(name, None, None, "No plan for both phases was found.")
    both = setting.judge.step_ms(mixed)
    gb = weights_gb(time, setting.found.slots_per_gpu)
    detail = (
        f"A plan of {phase} alone, where {phase} and {other} run on GPUs of their own: a plan balanced on tokens of "
        f"both takes {both:.4g} ms. See `--phase both`."
    )
    return setting.told(name, setting.step_ms_after, gb, detail)

"""Planning from the command line, shared by ``solve`` and ``demo``: search, write, judge, tell."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import print_json, say, write
from api.cli.engine_file import EngineFile
from api.cli.hints import balance_hint, overtime_note
from api.cli.outputs import check_outputs
from api.cli.progress import Progress, progress

if TYPE_CHECKING:
    from solvers import Event, Request, Solution, Study
    from solvers.ahead import Ahead
    from solvers.seeds import MakeExecutor
    from solvers.sources.source import Source
    from traces import ModelLayout

__all__ = ["plan_and_tell"]


def plan_and_tell(
    source: Source,
    request: Request,
    *,
    output: Path,
    report: Path | None,
    workers: int | None,
    as_json: bool,
    executor: MakeExecutor | None = None,
    model: ModelLayout | None = None,
    config: str | None = None,
    inputs: tuple[str | Path | None, ...] = (),
) -> dict[str, Any]:
    """Find a plan, write it and the engine's file, and print its figures beside those when nobody plans.

    Parameters
    ----------
    source : Trace, LoadCounts or Profile
    request : Request
    output : Path
        Plan file.
    report : Path or None
        HTML report.
    workers : int or None
    as_json : bool
        Print the returned document instead of tables.
    executor : callable, optional
        Where several seeds are searched.
    model : ModelLayout, optional
        For the engine's file.
    config : str, optional
        The model's config.json, as it was named.
    inputs : tuple of path
        Files that the engine's file must not overwrite.

    Returns
    -------
    dict
        JSON-ready: plan (its file), report, engine, engine_file, load, score, bound, gap, unit (of these three),
        termination, summary, elapsed_s, warnings, assumed, hints; advice, where time is what is minimised.
    """
    from api.report.summary import summary_text
    from api.report.verdict import UNITS, engine_note
    from solvers import Study
    from solvers.ahead import Ahead
    from traces.doctor.diagnosis import LINE

    with progress() as shown:
        shown.phase("reading and profiling")
        study = Study.of(source, request=request, workers=workers)
        engine_file = EngineFile.beside(output, study.problem.engine, model, config)
        if engine_file is not None:
            check_outputs({"The engine's file": engine_file.path}, (*inputs, output, report))
        for note in study.notes:  # before the time of a search is spent on a recording that is wrong
            say(note, "warning" if note.startswith(LINE) else "note")
        shown.phase("searching")
        ahead = Ahead(study, workers)
        solution = _search(study, shown, ahead, workers, executor)
        # Written before it is judged: whatever happens from here on, the search was not in vain.
        solution.plan.save(output)
        loaded = None if engine_file is None else engine_file.write(solution.plan)
        shown.phase("replaying tokens")
        ahead.join()
        comparison = study.compare({"plan": solution}, workers=workers)
        summary = comparison.as_dict()
        advice = None
        if request.time and study.baseline is not None:
            from solvers import advice_on

            shown.phase("timing")
            advice = advice_on(study, solution.plan)
        if report is not None:
            from api.report.report import write_report

            shown.phase("writing the report")
            write_report(report, study, solution, comparison, advice)
    assumed, hint = engine_note(study), balance_hint(summary)
    _say(study, solution, hint)
    document = {
        "plan": str(output),
        "report": None if report is None else str(report),
        "engine": study.problem.engine,
        "engine_file": None if loaded is None else loaded["file"],
        "load": None if loaded is None else loaded["load"],
        "score": solution.plan.score,
        "bound": solution.plan.bound,
        "gap": solution.plan.gap,
        "unit": UNITS[solution.score.timed],
        "termination": asdict(solution.termination),
        "summary": summary,
        "elapsed_s": solution.elapsed_s,
        "warnings": list(solution.plan.warnings),
        "assumed": assumed,
        "hints": [] if hint is None else [hint],
    }
    if advice is not None:
        document["advice"] = advice.detailed()
    if as_json:
        if loaded is not None and loaded["missing"] is not None:
            say(loaded["missing"], "note")
        print_json(document)
        return document
    if advice is not None:
        from api.report.advice import advice_text

        write(advice_text(advice) + "\n")
    write(summary_text(study, solution, comparison) + "\n")
    write(f"Plan written to {output}")
    if engine_file is not None and loaded is not None:
        engine_file.tell(loaded)
    if report is not None:
        write(f"Report written to {report}")
    return document


def _search(
    study: Study, shown: Progress, ahead: Ahead, workers: int | None, executor: MakeExecutor | None
) -> Solution:
    """Search, and show how far it is."""
    seeds = study.request.seeds

    def tell(done: int, score: float | None) -> None:
        best = "" if score is None else f", best {score:.5f}"
        shown.phase(f"searching: {done} of {seeds} seeds{best}")

    def observe(event: Event) -> None:
        ahead.observe(event)
        shown.observe(event)

    if executor is None:
        return study.solve(observe=observe, workers=workers)
    return study.solve(observe=observe, workers=workers, executor=executor, progress=tell)


def _say(study: Study, solution: Solution, hint: str | None) -> None:
    """Print what the search tells, warnings and the hint on stderr."""
    from api.report.summary import warnings_text

    if study.request.seeds == 1 and (late := overtime_note(study.problem, solution, study.request.limits.time_s)):
        say(late, "note")
    if solution.termination.limit == "cancelled":
        say("The search was stopped by hand; the best plan so far is kept.", "note")
    for warning in warnings_text(solution.plan.warnings):
        say(warning, "warning")
    if hint is not None:
        say(hint, "hint")

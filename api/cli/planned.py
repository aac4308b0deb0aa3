"""Planning from the command line, shared by ``solve`` and ``demo``: search, write, judge, tell."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import print_json, say, write
from api.cli.progress import progress
from api.cli.view import balance_hint, balance_table, figure_tables, headline, overtime_note, rows_of

if TYPE_CHECKING:
    from api.planning import PlanRequest
    from solvers.seeds import Restarts
    from solvers.source import Source

__all__ = ["plan_and_tell"]


def plan_and_tell(
    source: Source,
    request: PlanRequest,
    *,
    output: Path | None,
    report: Path | None,
    workers: int | None,
    as_json: bool,
    restarts: Restarts | None = None,
) -> dict[str, Any]:
    """Find a plan, write it, and print its figures beside those of the contiguous plan.

    Parameters
    ----------
    source : Trace, LoadCounts or Profile
    request : PlanRequest
    output, report : Path or None
        Plan file and HTML report.
    workers : int or None
    as_json : bool
        Print the returned document instead of tables.
    restarts : Restarts, optional
        Search with several seeds, and where; else once, in this process.

    Returns
    -------
    dict
        JSON-ready: plan (its file), report, score, bound, gap, termination, summary, elapsed_s, warnings, hints.
    """
    from api.figures import figures_of, measure
    from api.planning import prepare, run

    with progress() as shown:
        shown.phase("reading and profiling")
        prepared = prepare(source, request, workers=workers)
        shown.phase("searching")
        if restarts is None:
            solution = run(prepared, request, observe=shown.observe, workers=workers)
        else:
            from solvers.seeds import best_of_seeds

            def tell(done: int, score: float | None) -> None:
                best = "" if score is None else f", best {score:.5f}"
                shown.phase(f"searching: {done} of {restarts.seeds} seeds{best}")

            solution = best_of_seeds(prepared, request, restarts, workers=workers, progress=tell)
        # Written before it is judged: whatever happens from here on, the search was not in vain.
        if output is not None:
            solution.plan.save(output)
        shown.phase("replaying tokens")
        measured = measure(prepared.problem, prepared.parts, {"plan": solution.plan}, workers=workers)
        summary = figures_of(prepared.problem, measured, prepared.notes)
        if report is not None:
            from api.report.report import write_report

            shown.phase("writing the report")
            write_report(report, prepared.problem, solution, measured, summary)
    hint = balance_hint(summary)
    late = None if restarts is not None else overtime_note(prepared.problem, solution, request.limits.time_s)
    for note in (*prepared.notes, *([] if late is None else [late])):
        say(note, "note")
    if solution.termination.limit == "cancelled":
        say("The search was stopped by hand; the best plan so far is kept.", "note")
    for warning in solution.plan.warnings:
        say(warning, "warning")
    if hint is not None:
        say(hint, "hint")
    document = {
        "plan": None if output is None else str(output),
        "report": None if report is None else str(report),
        "score": solution.plan.score,
        "bound": solution.plan.bound,
        "gap": solution.plan.gap,
        "termination": asdict(solution.termination),
        "summary": summary,
        "elapsed_s": solution.elapsed_s,
        "warnings": list(solution.plan.warnings),
        "hints": [] if hint is None else [hint],
    }
    if as_json:
        print_json(document)
        return document
    write(headline(prepared.problem, solution))
    rows = rows_of(measured)
    write("\n" + (figure_tables(rows) if rows else balance_table(summary)) + "\n")
    for name, path in (("Plan", output), ("Report", report)):
        if path is not None:
            write(f"{name} written to {path}")
    return document

"""The report of a plan: one HTML file with everything in it, which opens without a network."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from api.report.figures import parts_of, table_cells
from api.report.sections import layer_charts, load_maps, search_chart, traffic_maps
from api.report.timing import advice_section, page_of
from api.report.verdict import PARTS, engine_note, headline, plan_row, side_note, verdict
from placement import Problem
from solvers import Advice, Solution
from solvers.judging.comparing import Comparison, Judged
from solvers.study import Study
from traces.support.atomic import atomic_write

__all__ = ["report_html", "write_report"]


def write_report(
    path: str | Path, study: Study, solution: Solution, comparison: Comparison, advice: Advice | None = None
) -> None:
    """Write the report, whole or not at all; see `report_html`."""
    document = report_html(study, solution, comparison, advice)
    with atomic_write(path) as file:
        file.write(document.encode())


def report_html(study: Study, solution: Solution, comparison: Comparison, advice: Advice | None = None) -> str:
    """Return the report as HTML that refers to nothing outside itself.

    Parameters
    ----------
    study : Study
    solution : Solution
    comparison : Comparison
        Of the study, with the solution's plan.
    advice : Advice, optional
        On the plan, where time is what is minimised: the verdict comes first.
    """
    problem, rows = study.problem, comparison.rows
    row = plan_row(comparison, solution)
    before = next((item for item in rows if item.name == comparison.baseline), None)
    part = parts_of(comparison)[-1]  # held out, if anything is
    sections = ["<h1>Expert placement: before and after</h1>"]
    sections += [] if advice is None else [advice_section(advice)]
    sections += [_overview(study, solution, comparison), _table(comparison, before, row)]
    if part is not None:
        sections += [layer_charts(problem, rows, part), traffic_maps(problem, rows, part)]
    sections += [load_maps(problem, rows, part), search_chart(solution), _provenance(solution)]
    return page_of("\n".join(sections))


def _overview(study: Study, solution: Solution, comparison: Comparison) -> str:
    paragraphs = [engine_note(study), *headline(study.problem, solution).split("\n"), _caps(study.problem)]
    text = "".join(f"<p>{escape(item)}</p>" for item in paragraphs if item is not None)
    warnings = "".join(f'<p class="warn">{escape(warning)}</p>' for warning in solution.plan.warnings)
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return f"{text}{warnings}" + (f"<ul>{notes}</ul>" if notes else "")


def _caps(problem: Problem) -> str:
    constraints = problem.constraints
    text = "No load cap" if constraints.load_cap is None else f"Load cap {constraints.load_cap:g}"
    if constraints.layer_load_caps:
        text += f" ({len(constraints.layer_load_caps)} layers with caps of their own)"
    if (quantile := constraints.load_quantile) is not None:
        text += f" at the {quantile:g} quantile over {problem.load_groups}"
    return f"{text}."


def _table(comparison: Comparison, before: Judged | None, row: Judged) -> str:
    """Return the one table of figures, and which plan is better by what."""
    columns = ("plan",) if before is None else ("before", "after", "change")
    titles = ["expected" if part is None else f"{PARTS.get(part, part)} tokens" for part in parts_of(comparison)]
    groups = "".join(f'<th colspan="{len(columns)}">{escape(title)}</th>' for title in titles)
    heads = "".join(f"<th>{name}</th>" for name in columns) * len(titles)
    lines = [f"<tr><th></th>{groups}</tr>", f'<tr><th class="name"></th>{heads}</tr>']
    for item in table_cells(comparison.problem, before, row):
        cells = "".join(f"<td>{escape(cell)}</td>" for part in item.parts for cell in part)
        lines.append(f'<tr><td class="name">{escape(item.words)}</td>{cells}</tr>')
    table = f'<div class="scroll"><table>{"".join(lines)}</table></div>'
    told = "" if before is None or before is row else f"<p><b>{escape(verdict(comparison, row))}</b></p>"
    return f"<h2>Which is better</h2>{told}<p>{escape(side_note(comparison, before))}</p>{table}"


def _provenance(solution: Solution) -> str:
    text = json.dumps(dict(solution.plan.provenance), indent=1, default=str)
    return f"<details><summary>How to make this plan again</summary><pre>{escape(text)}</pre></details>"

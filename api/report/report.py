"""The report of a plan: one HTML file with everything in it, which opens without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from api.report.sections import PARTS, layer_charts, load_maps, search_chart, traffic_maps
from placement import Problem
from solvers import Solution
from solvers.comparing import DISPATCH_FIGURES, Judged
from traces.support.atomic import atomic_write

__all__ = ["report_html", "write_report"]

CONTEXT_FIGURES = (
    "cross_gpu_fraction",
    "cross_node_fraction",
    "imbalance_max_over_mean",
    "balancedness_vllm",
    "fanout_gpus",
    "fanout_nodes",
)


def write_report(
    path: str | Path, problem: Problem, solution: Solution, measured: Sequence[Judged], summary: dict[str, Any]
) -> None:
    """Write the report, whole or not at all; see `report_html`."""
    document = report_html(problem, solution, measured, summary)
    with atomic_write(path) as file:
        file.write(document.encode())


def report_html(problem: Problem, solution: Solution, measured: Sequence[Judged], summary: dict[str, Any]) -> str:
    """Return the report as HTML that refers to nothing outside itself.

    Parameters
    ----------
    problem : Problem
    solution : Solution
    measured : sequence of Judged
        The plans to compare, the one of `solution` last.
    summary : dict
        As `solvers.Comparison.as_dict` gives it.
    """
    part = next((name for name in ("held_out", "fit") if measured and name in measured[0].parts), None)
    sections = [_overview(problem, solution, summary)]
    if part is None:
        sections.append(_expected_table(summary))
    else:
        sections += [_tables(measured), layer_charts(problem, measured, part), traffic_maps(problem, measured, part)]
    sections += [load_maps(problem, measured, part), search_chart(solution), _provenance(solution)]
    body = "\n".join(sections)
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Expert placement</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{style}</style></head><body>\n{body}\n</body></html>\n"
    )


def _overview(problem: Problem, solution: Solution, summary: dict[str, Any]) -> str:
    plan, termination = solution.plan, solution.termination
    cap = "no load cap" if (limit := problem.constraints.load_cap) is None else f"load cap {limit:g}"
    if problem.constraints.layer_load_caps:
        cap += f" ({len(problem.constraints.layer_load_caps)} layers with caps of their own)"
    if (quantile := problem.constraints.load_quantile) is not None:
        cap += f" at the {quantile:g} quantile over {problem.load_groups}"
    bound = "no bound is known" if plan.bound is None else f"no plan gets below {plan.bound:.4f} (gap {plan.gap:.1%})"
    facts = (
        f"{problem.num_layers} MoE layers of {problem.num_experts} experts on {problem.topology.name}: "
        f"{problem.num_gpus} GPUs with {problem.slots_per_gpu} slots per layer; {cap}. "
        f"Solver {plan.provenance.get('solver', 'unknown')}, {solution.elapsed_s:.1f} s: {termination.reason}, score "
        f"{solution.score.total:.4f} ({problem.objective.traffic_unit}); {bound}."
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary["notes"])
    warnings = "".join(f'<p class="warn">{escape(warning)}</p>' for warning in plan.warnings)
    return f"<h1>Expert placement: before and after</h1><p>{escape(facts)}</p>{warnings}<ul>{notes}</ul>"


def _tables(measured: Sequence[Judged]) -> str:
    context = _table(measured, CONTEXT_FIGURES, lambda found: found.context_coherent)
    dispatch = _table(measured, DISPATCH_FIGURES, lambda found: found.dispatch)
    return (
        "<h2>If tokens go straight to the next layer's experts (context-coherent)</h2>"
        f"{context}<h2>If tokens go home after every layer (dispatch and combine)</h2>"
        "<p>vLLM, SGLang, TensorRT-LLM and Megatron work like this. remote_gpus and remote_nodes count the GPUs and "
        f"nodes other than its home that a token is sent to, per layer.</p>{dispatch}"
    )


def _table(measured: Sequence[Judged], names: Sequence[str], pick: Any) -> str:
    head = _head(("part", "plan"), ("tokens", *names))
    rows = []
    for part in measured[0].parts:
        for item in measured:
            found = pick(item.parts[part])
            cells = [PARTS.get(part, part), item.name, f"{found.tokens:,}"]
            cells += ["-" if (value := getattr(found, name)) is None else f"{value:.4f}" for name in names]
            rows.append(_row(item.name, cells, 2))
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _expected_table(summary: dict[str, Any]) -> str:
    names = ("imbalance_max_over_mean", "balancedness_vllm", "imbalance_trtllm")
    head = _head(("plan",), names)
    rows = "".join(
        _row(plan, [plan, *(f"{figures['expected_load'][name]:.4f}" for name in names)], 1)
        for plan, figures in summary["plans"].items()
    )
    return f"<h2>Expected load, from counts</h2><table><tr>{head}</tr>{rows}</table>"


def _head(named: Sequence[str], figures: Sequence[str]) -> str:
    return "".join(f'<th class="name">{name}</th>' for name in named) + "".join(f"<th>{name}</th>" for name in figures)


def _row(name: str, cells: Sequence[str], named: int) -> str:
    mark = "" if name == "contiguous" else ' class="plan"'
    classes = [' class="name"' if number < named else "" for number in range(len(cells))]
    return (
        f"<tr{mark}>{''.join(f'<td{kind}>{escape(cell)}</td>' for kind, cell in zip(classes, cells, strict=True))}</tr>"
    )


def _provenance(solution: Solution) -> str:
    text = json.dumps(dict(solution.plan.provenance), indent=1, default=str)
    return f"<details><summary>How to make this plan again</summary><pre>{escape(text)}</pre></details>"

"""The before/after tables and the sentences around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from api.cli.console import table

if TYPE_CHECKING:
    from placement import Evaluation, Problem
    from solvers import Solution
    from solvers.comparing import Judged, PartFigures

__all__ = ["Row", "balance_table", "figure_tables", "headline", "rows_of"]

PARTS = {"fit": "fit", "held_out": "held out", "all": "all"}
STRAIGHT = "Tokens go straight from one layer's experts to the next (context-coherent, ExFlow):"
HOME = "Tokens go home after every layer (dispatch and combine: vLLM, SGLang, TensorRT-LLM, Megatron);"
HOMES = {
    "token": "homes hashed per token",
    "sequence": "homes hashed per sequence",
    "measured": "homes from source_rank",
}


class Row(NamedTuple):
    """A plan on a part of the trace."""

    part: str
    name: str
    found: PartFigures


def rows_of(measured: Sequence[Judged]) -> list[Row]:
    """Return the rows of a before/after table, part by part."""
    parts = list(measured[0].parts) if measured else []
    return [Row(part, item.name, item.parts[part]) for part in parts for item in measured]


def figure_tables(rows: Sequence[Row]) -> str:
    """Return two tables: what crosses, and who waits, for both ways that tokens travel."""
    first = rows[0].found
    dispatch = first.dispatch
    context_columns: tuple[str, ...] = (
        "cross_gpu_fraction",
        "cross_node_fraction",
        "imbalance_max_over_mean",
        "balancedness_vllm",
    )
    if any(row.found.evaluation.imbalance_optimal_split is not None for row in rows):
        context_columns = (*context_columns, "imbalance_optimal_split")
    dispatch_columns: tuple[str, ...] = (
        "cross_gpu_fraction",
        "fanout_gpus",
        "fanout_nodes",
        "remote_gpus",
        "remote_nodes",
    )
    if first.evaluation is dispatch:
        dispatch_columns = ("cross_gpu_fraction", "cross_node_fraction", *dispatch_columns[1:], *context_columns[2:])
        context_columns = context_columns[:2]
        if any(row.found.evaluation.activated_experts is not None for row in rows):
            dispatch_columns = (*dispatch_columns, "activated_experts")
    else:
        context_columns = (*context_columns, "fanout_gpus", "fanout_nodes")
    context = _figures([(row, row.found.context_coherent) for row in rows], context_columns)
    homes = f"{HOME}\n{HOMES[str(dispatch.ownership)]}; remote_ is without the home, per token and layer:"
    home = _figures([(row, row.found.dispatch) for row in rows], dispatch_columns)
    blocks = [f"{STRAIGHT}\n{context}", f"{homes}\n{home}"]
    if first.evaluation is dispatch:
        blocks.reverse()
    return "\n\n".join(blocks)


def balance_table(summary: dict[str, Any]) -> str:
    """Return the table for sources without tokens: expected loads only."""
    names = ("imbalance_max_over_mean", "balancedness_vllm", "imbalance_trtllm")
    header = ["plan", *(_heading(name) for name in names)]
    rows = [
        [plan, *(f"{figures['expected_load'][name]:.4f}" for name in names)]
        for plan, figures in summary["plans"].items()
    ]
    return "Expected load, from counts alone (traffic needs a trace with tokens):\n" + table(header, rows)


def headline(problem: Problem, solution: Solution) -> str:
    """Return one sentence on the plan and one on the search."""
    plan, termination = solution.plan, solution.termination
    bound = "no bound is known" if plan.bound is None else f"bound {plan.bound:.5f}, gap {plan.gap:.1%}"
    why = {None: "ran to its end", "time": "stopped by the time limit", "work": "stopped by the work limit"}
    why |= {"gap": "gap reached", "no_improvement": "stopped improving", "cancelled": "stopped by hand"}
    quality = {"optimal": "Best possible plan,", "infeasible": "Plan that misses its load cap (see the warnings),"}
    found_by = plan.provenance.get("found_by") or plan.provenance.get("solver")
    return (
        f"{problem.num_layers} layers of {problem.num_experts} experts on {problem.topology.name} "
        f"({problem.num_gpus} GPUs, {problem.slots_per_gpu} slots each).\n"
        f"{quality.get(termination.reason, 'Plan')} by {found_by} after {solution.elapsed_s:.1f} s "
        f"({why[termination.limit]}).\n"
        f"Score {solution.score.total:.5f} ({problem.objective.traffic_unit}), {bound}."
    )


def _figures(rows: Sequence[tuple[Row, Evaluation]], names: Sequence[str]) -> str:
    header = ["part", "plan", "tokens", *(_heading(name) for name in names)]
    cells = [
        [
            PARTS.get(row.part, row.part),
            row.name,
            f"{found.tokens:,}",
            *(_number(getattr(found, name)) for name in names),
        ]
        for row, found in rows
    ]
    return table(header, cells, left=2)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _heading(name: str) -> str:
    """Break a figure's name over two lines."""
    for ending in ("_fraction", "_max_over_mean", "_optimal_split", "_vllm", "_trtllm", "_gpus", "_nodes", "_experts"):
        if name.endswith(ending):
            return f"{name.removesuffix(ending)}\n{ending}"
    return name

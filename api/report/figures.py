"""Which figures of a comparison are shown, in which words: the same for the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from placement import Evaluation, Problem, SettledObjective, Topology
    from solvers.judging.comparing import Comparison, Judged

__all__ = [
    "LOAD",
    "Cells",
    "Change",
    "Figure",
    "change_of",
    "evaluations_of",
    "parts_of",
    "parts_of_row",
    "replayed_figures",
    "shown_figures",
    "table_cells",
    "tokens_of",
    "uniform",
    "value_of",
]

# What rounds away in a table of three digits, and what another recording of the same traffic moves anyway.
NOTICEABLE = 0.005


@dataclass(frozen=True)
class Figure:
    """A figure of `placement.Evaluation`, lower being better.

    Attributes
    ----------
    name : str
        Attribute of the evaluation.
    words : str
        Row of a table.
    fewer : str
        What a change says, ``{}`` being ``12.3 % fewer`` or ``12.3 % more``; empty: both values are told instead.
    instead : str
        What both values say, ``{}`` being ``1.061 instead of 1.200``.
    kind : {"share", "number", "count"}
        How its values are written.
    """

    name: str
    words: str
    fewer: str
    instead: str
    kind: Literal["share", "number", "count"] = "number"

    def of(self, evaluation: Evaluation) -> float | None:
        """Return its value, None where there is none."""
        value: float | None = getattr(evaluation, self.name)
        return value

    def show(self, value: float | None) -> str:
        """Return a value as text."""
        if value is None:
            return "-"
        if self.kind == "share":
            return f"{100 * value:.1f} %"
        return f"{value:.1f}" if self.kind == "count" else f"{value:.3f}"


@dataclass(frozen=True)
class PassLoad(Figure):
    """The busiest GPU's load in forward passes of so many tokens, mean over passes and layers."""

    tokens: int = 0

    def of(self, evaluation: Evaluation) -> float | None:
        """Return its value, None where the tokens make no whole pass."""
        for item in evaluation.per_pass:
            if item.pass_tokens == self.tokens and item.imbalance_trtllm is not None:
                return 1 + item.imbalance_trtllm
        return None


LOAD = Figure("imbalance_max_over_mean", "busiest GPU's load / mean load", "", "busiest GPU {} times the mean")
BEST_SPLIT = Figure("imbalance_optimal_split", "  if replicas shared it ideally", "", "busiest GPU at best {} times")
ACTIVATED = Figure(
    "activated_experts",
    "activated experts, GPU with most",
    "{} activated experts on the GPU that has most",
    "activated experts on the GPU that has most: {}",
    "count",
)
PAIRS = {
    "cross_node_fraction": Figure(
        "cross_node_fraction", "pairs that change node", "{} pairs change node", "pairs that change node: {}", "share"
    ),
    "cross_gpu_fraction": Figure(
        "cross_gpu_fraction", "pairs that change GPU", "{} pairs change GPU", "pairs that change GPU: {}", "share"
    ),
}
REMOTE = {
    "remote_nodes": Figure(
        "remote_nodes",
        "other nodes per token and layer",
        "{} other nodes per token",
        "other nodes per token and layer: {}",
    ),
    "remote_gpus": Figure(
        "remote_gpus", "other GPUs per token and layer", "{} other GPUs per token", "other GPUs per token and layer: {}"
    ),
}
MESSAGES = {
    "cross_node_fraction": Figure(
        "cross_node_fraction",
        "messages that leave their node",
        "{} messages leave their node",
        "messages that leave their node: {}",
        "share",
    ),
    "cross_gpu_fraction": Figure(
        "cross_gpu_fraction",
        "messages that leave their GPU",
        "{} messages leave their GPU",
        "messages that leave their GPU: {}",
        "share",
    ),
}


class Change(NamedTuple):
    """A figure of a plan beside that of the baseline."""

    figure: Figure
    before: float
    after: float

    @property
    def relative(self) -> float | None:
        """Share of the value before by which it went up; None from 0 to something."""
        if self.before == 0:
            return 0.0 if self.after == 0 else None
        return (self.after - self.before) / self.before

    @property
    def sign(self) -> int:
        """Whether it is better (-1), worse (1), or no different (0)."""
        if (relative := self.relative) is None:
            return 1
        return 0 if abs(relative) <= NOTICEABLE else (1 if relative > 0 else -1)

    @property
    def cell(self) -> str:
        """The change, as in a table."""
        relative = self.relative
        if relative is None:
            return f"+{self.figure.show(self.after)}"
        text = f"{100 * relative:+.1f} %"
        return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text

    @property
    def words(self) -> str:
        """The change, as in a sentence."""
        figure, relative = self.figure, self.relative
        if relative is None or not figure.fewer:
            both = f"{figure.show(self.after)} instead of {figure.show(self.before)}"
            return figure.instead.format(both)
        return figure.fewer.format(f"{100 * abs(relative):.1f} % {'fewer' if relative < 0 else 'more'}")


class Cells(NamedTuple):
    """A row of the table before/after: its words, and per part the cells before, after and change."""

    words: str
    parts: tuple[tuple[str, ...], ...]


def uniform(topology: Topology) -> bool:
    """Whether every hop between two GPUs costs the same, so that the traffic's cost says nothing of its own."""
    import numpy as np  # late: the command line starts without it

    between = topology.hop_cost[~np.eye(topology.num_gpus, dtype=bool)]
    return not between.size or bool(between.min() == between.max())


def shown_figures(problem: Problem, found: Sequence[Evaluation]) -> list[Figure]:
    """Return the rows of a table of these evaluations; without any, there are expected loads only."""
    if not found:
        return [Figure(LOAD.name, f"{LOAD.words}, expected", "", LOAD.instead)]
    topology, objective = problem.topology, problem.objective
    nodes = topology.num_nodes
    forwards = objective.execution == "dispatch" and objective.dedup == "node" and nodes > 1
    costs = forwards or not uniform(topology)  # forwarding inside a node costs as well
    return _figures(objective, found, nodes=nodes > 1, gpus=nodes < topology.num_gpus, costs=costs)


def replayed_figures(found: Sequence[Evaluation]) -> list[Figure]:
    """Return the rows of a table of these evaluations, all under one objective, on machines that they don't tell."""
    nodes = any(item.fanout_nodes > 1 or item.cross_node_fraction > 0 for item in found)
    return _figures(found[0], found, nodes=nodes, gpus=True, costs=nodes)


def _figures(
    how: SettledObjective | Evaluation, found: Sequence[Evaluation], *, nodes: bool, gpus: bool, costs: bool
) -> list[Figure]:
    """Return what crosses, what counts most first, and who waits."""
    kinds = [*(["node"] if nodes else []), *(["gpu"] if gpus else [])]
    crossing = [f"cross_{kind}_fraction" for kind in kinds]
    if how.execution == "context_coherent":
        figures, per = [PAIRS[name] for name in crossing], "pair"
    elif how.dedup == "none":
        figures, per = (
            [*(REMOTE[f"remote_{kind}s"] for kind in kinds), *(MESSAGES[name] for name in crossing)],
            "message",
        )
    else:
        figures, per = [REMOTE[f"remote_{kind}s"] for kind in kinds], "token and layer"
    if costs:
        figures.append(Figure("traffic", f"hop cost per {per}", "", f"hop cost per {per} {{}}"))
    sizes = dict.fromkeys(item.pass_tokens for one in found for item in one.per_pass)
    further = [*map(_per_pass, sizes), BEST_SPLIT, ACTIVATED]
    return [*figures, LOAD, *(figure for figure in further if any(figure.of(item) is not None for item in found))]


def _per_pass(tokens: int) -> PassLoad:
    words, instead = (
        f"  in passes of {tokens:,} tokens",
        f"busiest GPU {{}} times the mean in passes of {tokens:,} tokens",
    )
    return PassLoad(f"pass_load_{tokens}", words, "", instead, tokens=tokens)


def parts_of(comparison: Comparison) -> list[str | None]:
    """Return the names of the parts that have tokens, or counts over time; one None where there are only counts."""
    return parts_of_row(comparison.rows[0]) if comparison.rows else [None]


def parts_of_row(row: Judged) -> list[str | None]:
    """Return the names of a plan's parts, as `parts_of`."""
    return [*(row.parts or row.counts)] or [None]


def evaluations_of(rows: Iterable[Judged | None], part: str | None) -> list[Evaluation]:
    """Return the replays of a part by plan; none where a part has counts only."""
    return [row.parts[part].evaluation for row in rows if row is not None and part is not None and part in row.parts]


def tokens_of(comparison: Comparison, part: str) -> int:
    """Return the number of tokens of a part."""
    return comparison.rows[0].parts[part].evaluation.tokens


def value_of(row: Judged, part: str | None, figure: Figure) -> float | None:
    """Return a plan's figure on a part; of no part, the expected one."""
    if part is None:
        return row.expected_load.get(figure.name)
    if part in row.counts:
        return row.counts[part].as_dict().get(figure.name)
    return figure.of(row.parts[part].evaluation)


def change_of(before: Judged, after: Judged, part: str | None, figure: Figure) -> Change | None:
    """Return how a figure changes from one plan to the other; None where either has none."""
    values = value_of(before, part, figure), value_of(after, part, figure)
    if values[0] is None or values[1] is None:
        return None
    return Change(figure, values[0], values[1])


def table_cells(problem: Problem, before: Judged | None, after: Judged) -> list[Cells]:
    """Return the table of a plan: a row per figure, and per part before, after and change.

    Where there is no plan to compare with, a part has the plan's own value only.
    """
    parts = parts_of_row(after)
    found = [item.evaluation for row in (before, after) if row is not None for item in row.parts.values()]
    rows = []
    for figure in shown_figures(problem, found):
        cells: list[tuple[str, ...]] = []
        for part in parts:
            shown = figure.show(value_of(after, part, figure))
            if before is None:
                cells.append((shown,))
                continue
            change = change_of(before, after, part, figure)
            cells.append((figure.show(value_of(before, part, figure)), shown, "" if change is None else change.cell))
        rows.append(Cells(figure.words, tuple(cells)))
    return rows

"""``moe-placement evaluate`` and ``moe-placement compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.progress import progress
from api.cli.view import Row, figure_tables

if TYPE_CHECKING:
    from placement import Objective, Plan, Topology
    from traces import Trace

__all__ = ["compare", "evaluate"]

Part = Annotated[
    str,
    typer.Option(
        parser=shared.choice("fit", "held_out", "all"),
        metavar="fit|held-out|all",
        help="Part of the trace, split as `solve` does.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(metavar="NxG", help="As for `solve`.  [default: that of the plan]", show_default=False),
]


def evaluate(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="Plan file.")],
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace to replay.")],
    topology: Where = None,
    execution: shared.ExecutionOption = "context_coherent",
    dedup: shared.DedupOption = "gpu",
    ownership: shared.OwnershipOption = "token",
    copy_policy: shared.CopyPolicyOption = None,
    part: Part = "all",
    hold_out: shared.HoldOutOption = None,
    num_experts: shared.NumExpertsOption = None,
    layer_ids: shared.LayerIdsOption = None,
    format_name: shared.FormatOption = None,
    workers: shared.WorkersOption = None,
    as_json: Json = False,
) -> None:
    """Replay every token of a trace through a plan."""
    _check_part(part, hold_out)
    loading = shared.load_options(num_experts, layer_ids, format_name)

    from api.figures import part_figures, replay_both

    objective = _objective(execution, dedup, ownership, copy_policy)
    loaded, where = _plan_and_topology(plan, topology)
    with progress() as shown:
        shown.phase("replaying tokens")
        tokens, notes = _tokens(trace, part, hold_out, loading)
        found = replay_both(loaded, tokens, where, objective, workers=workers)
    for note in notes:
        say(note, "note")
    if as_json:
        both = part_figures(found)
        extra = {"context_coherent": both["context_coherent"], "dispatch": both["dispatch"]}
        extra |= {"plan": str(plan), "trace": str(trace), "part": part, "topology": where.name, "notes": list(notes)}
        print_json(found.evaluation.as_dict() | extra)
        return
    write(f"{plan} on {where.name}, {part.replace('_', ' ')} tokens of {trace}\n")
    write(figure_tables([Row(part, plan.stem, found)]))


def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="PLAN... TRACE", help="Plan files, then the trace.")],
    topology: Where = None,
    execution: shared.ExecutionOption = "context_coherent",
    dedup: shared.DedupOption = "gpu",
    ownership: shared.OwnershipOption = "token",
    copy_policy: shared.CopyPolicyOption = None,
    part: Part = "all",
    hold_out: shared.HoldOutOption = None,
    num_experts: shared.NumExpertsOption = None,
    layer_ids: shared.LayerIdsOption = None,
    format_name: shared.FormatOption = None,
    workers: shared.WorkersOption = None,
    as_json: Json = False,
) -> None:
    """Replay a trace through several plans, and show them side by side."""
    *files, trace = paths
    if not files:
        raise typer.BadParameter("Name at least one plan, then the trace.", param_hint="PLAN... TRACE")
    _check_part(part, hold_out)
    loading = shared.load_options(num_experts, layer_ids, format_name)

    from api.figures import part_figures, replay_both

    objective = _objective(execution, dedup, ownership, copy_policy)
    plans = [(file, *_plan_and_topology(file, topology)) for file in files]
    rows, documents = [], []
    with progress() as shown:
        tokens, notes = _tokens(trace, part, hold_out, loading)
        for file, loaded, where in plans:
            shown.phase(f"replaying tokens through {file.name}")
            found = replay_both(loaded, tokens, where, objective, workers=workers)
            rows.append(Row(part, str(file), found))
            own = {"score": loaded.score, "bound": loaded.bound, "gap": loaded.gap}
            documents.append({"plan": str(file), "topology": where.name} | own | part_figures(found))
    for note in notes:
        say(note, "note")
    if as_json:
        print_json({"trace": str(trace), "part": part, "notes": list(notes), "plans": documents})
        return
    write(figure_tables(rows))


def _check_part(part: str, hold_out: float | None) -> None:
    """Refuse a share that would not be used: all tokens are not split."""
    if part == "all" and hold_out:
        raise typer.BadParameter(
            "All tokens are replayed, so nothing is held out. Add --part fit or --part held-out, or leave it out.",
            param_hint="--hold-out",
        )


def _objective(execution: str, dedup: str, ownership: str, copy_policy: str | None) -> Objective:
    from placement import Objective

    policy = copy_policy or ("same_node" if execution == "dispatch" else "fair")
    names: dict[str, Any] = {"execution": execution, "dedup": dedup, "ownership": ownership, "copy_policy": policy}
    return Objective(**names)


def _plan_and_topology(path: Path, topology: str | None) -> tuple[Plan, Topology]:
    """Read a plan, and find its topology: as asked, else as recorded in the plan, else from its nodes."""
    from placement import Topology, load_plan
    from placement.files import recorded_topology

    plan = load_plan(path)
    if topology is not None:
        return plan, shared.read_topology(topology)
    return plan, recorded_topology(plan, f"{path.name}#") or Topology.of(plan.gpus_per_node)


def _tokens(path: Path, part: str, hold_out: float | None, loading: dict[str, Any]) -> tuple[Trace, tuple[str, ...]]:
    """Return the part of a trace to replay, and the notes on it."""
    from api.sources import open_source, split
    from traces import InputError

    fit, held_out, notes = split(open_source(path, **loading), 0 if part == "all" else hold_out)
    chosen = held_out if part == "held_out" else fit
    if chosen is None and fit is None:
        raise InputError.of(
            "counts_only",
            path.name,
            "There are no tokens to replay: the file holds counts.",
            "Give a trace with topk_ids.",
        )
    if chosen is None:
        raise InputError.of(
            "hold_out_empty", "/hold_out", "Nothing is held out of this source.", "Choose another part."
        )
    return chosen, notes

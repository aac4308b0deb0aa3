"""``moe-placement evaluate`` and ``moe-placement compare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli import reading
from api.cli.console import Json, print_json, say, write
from api.cli.progress import Progress, progress
from api.cli.remote.service import ServerOption, fetch_plan, is_plan, machine_of, refuse_options, service_at
from api.cli.remote.trace import send_trace
from api.cli.view import Row, figure_tables

if TYPE_CHECKING:
    from api.client import Client
    from api.figures import PartFigures
    from placement import Objective, Plan, Topology
    from traces import Trace

    Replay = Callable[[Path, Plan, Topology, Objective], tuple[PartFigures, tuple[str, ...]]]

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
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="Plan, or placement file of an engine; with --server also plan_...")
    ],
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace to replay.")],
    topology: Where = None,
    execution: shared.PlansExecutionOption = None,
    dedup: shared.PlansDedupOption = None,
    ownership: shared.PlansOwnershipOption = None,
    replica_policy: shared.PlansReplicaPolicyOption = None,
    decode_batch: shared.PlansDecodeBatchOption = None,
    part: Part = "all",
    hold_out: shared.HoldOutOption = None,
    top_k: shared.TopKOption = None,
    drop_dummy: shared.DropDummyOption = False,
    num_experts: shared.NumExpertsOption = None,
    layer_ids: shared.LayerIdsOption = None,
    format_name: shared.FormatOption = None,
    plan_format: shared.PlanFormatOption = None,
    model_config: shared.ModelConfigOption = None,
    model_layers: shared.ModelLayersOption = None,
    first_moe_layer: shared.FirstMoeLayerOption = None,
    mtp_layers: shared.MtpLayersOption = None,
    workers: shared.WorkersOption = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Replay every token of a trace through a plan, as the plan was made for unless other options are given."""
    if server is not None:
        refuse_options(_local_options([plan], workers, plan_format))
    _check_part(part, hold_out)
    model = reading.read_model(model_config, model_layers, first_moe_layer, mtp_layers)
    loading = reading.load_options(num_experts, layer_ids, format_name, model)

    from api.figures import part_figures

    loading |= reading.row_options(top_k, drop_dummy)
    asked = {"execution": execution, "dedup": dedup, "ownership": ownership, "replica_policy": replica_policy}
    known = {"model": model, "num_experts": num_experts, "layer_ids": layer_ids}
    with progress() as shown, ExitStack() as stack:
        service, fetched = _service(server, [plan], stack)
        machine = None if topology is None else machine_of(topology, server)
        loaded, where = _plan_and_topology(fetched[0], machine, plan_format, known)
        replay = _replay(service, trace, part, hold_out, loading, workers, shown)
        shown.phase("replaying tokens" if service is None else "waiting for the service")
        found, notes = replay(plan, loaded, where, _counting(_objective(loaded, asked), loaded, decode_batch))
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
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PLAN... TRACE",
            help="Plans, or placement files of engines, then the trace; with --server also plan_... and sha256:...",
        ),
    ],
    topology: Where = None,
    execution: shared.PlansExecutionOption = None,
    dedup: shared.PlansDedupOption = None,
    ownership: shared.PlansOwnershipOption = None,
    replica_policy: shared.PlansReplicaPolicyOption = None,
    decode_batch: shared.PlansDecodeBatchOption = None,
    part: Part = "all",
    hold_out: shared.HoldOutOption = None,
    top_k: shared.TopKOption = None,
    drop_dummy: shared.DropDummyOption = False,
    num_experts: shared.NumExpertsOption = None,
    layer_ids: shared.LayerIdsOption = None,
    format_name: shared.FormatOption = None,
    plan_format: shared.PlanFormatOption = None,
    model_config: shared.ModelConfigOption = None,
    model_layers: shared.ModelLayersOption = None,
    first_moe_layer: shared.FirstMoeLayerOption = None,
    mtp_layers: shared.MtpLayersOption = None,
    workers: shared.WorkersOption = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Replay a trace through several plans, all as the first was made for unless other options are given."""
    *files, trace = paths
    if not files:
        raise typer.BadParameter("Name at least one plan, then the trace.", param_hint="PLAN... TRACE")
    if server is not None:
        refuse_options(_local_options(files, workers, plan_format))
    _check_part(part, hold_out)
    model = reading.read_model(model_config, model_layers, first_moe_layer, mtp_layers)
    loading = reading.load_options(num_experts, layer_ids, format_name, model)

    from api.figures import part_figures

    loading |= reading.row_options(top_k, drop_dummy)
    asked = {"execution": execution, "dedup": dedup, "ownership": ownership, "replica_policy": replica_policy}
    known = {"model": model, "num_experts": num_experts, "layer_ids": layer_ids}
    rows, documents = [], []
    with progress() as shown, ExitStack() as stack:
        service, fetched = _service(server, files, stack)
        machine = None if topology is None else machine_of(topology, server)
        plans = [_plan_and_topology(file, machine, plan_format, known) for file in fetched]
        objectives = [_objective(loaded, asked) for loaded, _ in plans]
        # One for all, or the rows would not compare.
        objective = _counting(objectives[0], plans[0][0], decode_batch)
        replay = _replay(service, trace, part, hold_out, loading, workers, shown)
        for file, (loaded, where) in zip(files, plans, strict=True):
            shown.phase(f"replaying tokens through {file.name}")
            found, notes = replay(file, loaded, where, objective)
            rows.append(Row(part, str(file), found))
            own = {"score": loaded.score, "bound": loaded.bound, "gap": loaded.gap}
            documents.append({"plan": str(file), "topology": where.name} | own | part_figures(found))
    notes += _differences(files, objectives)
    for note in notes:
        say(note, "note")
    if as_json:
        used = {name: getattr(objective, name) for name in asked}
        print_json({"trace": str(trace), "part": part} | used | {"notes": list(notes), "plans": documents})
        return
    write(figure_tables(rows))


def _local_options(plans: Sequence[Path], workers: int | None, plan_format: str | None) -> dict[str, object]:
    """Return, by name, the options that are for this process or its own files; None where not given."""
    return {"--workers": workers, "--plan-format": plan_format if any(map(is_plan, plans)) else None}


def _service(server: str | None, plans: Sequence[Path], stack: ExitStack) -> tuple[Client | None, list[Path]]:
    """Return the service, and a file for each plan: itself, or what the service has under that id."""
    if server is None:
        return None, list(plans)
    service = stack.enter_context(service_at(server))
    folder = Path(stack.enter_context(TemporaryDirectory()))
    return service, [fetch_plan(service, str(plan), folder) if is_plan(plan) else plan for plan in plans]


def _replay(
    service: Client | None,
    trace: Path,
    part: str,
    hold_out: float | None,
    loading: dict[str, Any],
    workers: int | None,
    shown: Progress,
) -> Replay:
    """Return what replays the trace through a plan, named as on the command line, and tells notes on the tokens."""
    if service is None:
        from api.figures import replay_both

        tokens, notes = _tokens(trace, part, hold_out, loading)
        return lambda _, plan, where, objective: (replay_both(plan, tokens, where, objective, workers=workers), notes)

    from api.cli.remote.evaluation import replay_remotely

    shown.phase("uploading")
    asked = {"trace": send_trace(service, trace, loading), "part": part, "hold_out": hold_out}
    return lambda name, plan, where, objective: replay_remotely(
        service, plan, str(name) if is_plan(name) else None, asked, where, objective
    )


def _check_part(part: str, hold_out: float | None) -> None:
    """Refuse a share that would not be used: all tokens are not split."""
    if part == "all" and hold_out:
        raise typer.BadParameter(
            "All tokens are replayed, so nothing is held out. Add --part fit or --part held-out, or leave it out.",
            param_hint="--hold-out",
        )


def _objective(plan: Plan, asked: Mapping[str, str | None]) -> Objective:
    """Return how tokens travel: as asked, else as recorded in the plan, else by default."""
    from placement import Objective
    from placement.replay.choices import merge_choices, recorded_choices

    choices = merge_choices(recorded_choices(plan.provenance), asked)
    if choices.get("replica_policy") is None:
        choices["replica_policy"] = "same_node" if choices.get("execution") == "dispatch" else "fair"
    return Objective(**choices)


def _counting(objective: Objective, plan: Plan, decode_batch: int | None) -> Objective:
    """Return the objective with a weight of activated experts if these are to be counted: as asked, else as recorded.

    Raises
    ------
    InputError
        If they are asked for under another execution than dispatch.
    """
    from dataclasses import replace

    from placement.replay.choices import decode_batch_of
    from traces import InputError

    batch = decode_batch_of(plan.provenance.get("objective"), decode_batch, objective.execution)
    if batch is None:
        return objective
    if objective.execution != "dispatch":
        detail = "Activated experts are counted with home ranks, which only execution 'dispatch' knows."
        remedy = "Add --execution dispatch, or leave it out."
        raise InputError.of("activated_execution", "--decode-batch", detail, remedy)
    return replace(objective, activated_weight=1.0, decode_batch=batch)


def _differences(files: Sequence[Path], objectives: Sequence[Objective]) -> tuple[str, ...]:
    """Return a note where plans would be replayed in other ways than the first one, which decides."""
    first = objectives[0]
    others = [str(file) for file, objective in zip(files, objectives, strict=True) if objective != first]
    if not others:
        return ()
    names = ("execution", "dedup", "ownership", "replica_policy")
    used = ", ".join(f"{name.replace('_', ' ')} {getattr(first, name).replace('_', '-')}" for name in names)
    return (
        f"The plans' objectives differ. All are replayed as {files[0]} would be: {used}. Alone, {', '.join(others)} "
        "would be replayed otherwise. Choose with --execution, --dedup, --ownership and --replica-policy.",
    )


def _plan_and_topology(
    path: Path, asked: Topology | None, format_name: str | None, known: Mapping[str, Any]
) -> tuple[Plan, Topology]:
    """Read a plan, and find its topology: as asked, else as recorded in the plan, else from its nodes."""
    from placement import Topology
    from placement.replay.choices import recorded_topology

    plan = reading.read_placement(path, format_name, topology=asked, **known)
    if asked is not None:
        return plan, asked
    return plan, recorded_topology(plan, f"{path.name}#") or Topology.of(plan.gpus_per_node)


def _tokens(path: Path, part: str, hold_out: float | None, loading: dict[str, Any]) -> tuple[Trace, tuple[str, ...]]:
    """Return the part of a trace to replay, and the notes on it."""
    from solvers.source import open_source, part_of

    return part_of(open_source(path, **loading), part, hold_out, path.name)

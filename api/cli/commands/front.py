"""``moe-placement front``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import constraints as limited
from api.cli import options as shared
from api.cli import reading
from api.cli.commands.solve import DEFAULT_TIME_S
from api.cli.console import Json, print_json, say, table, write
from api.cli.progress import progress
from api.cli.remote.service import ServerOption, machine_of, named_plan, refuse_options

if TYPE_CHECKING:
    from placement import Plan

__all__ = ["front"]

DEFAULT_FRONT_TIME_S = 6 * DEFAULT_TIME_S
AGAINST = ("imbalance", "replicas", "bytes_moved")


def front(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace, saved profile or load matrix.")],
    topology: shared.TopologyOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Plan file of the picked point (JSON).")
    ] = None,
    pick: Annotated[
        str,
        typer.Option(
            metavar="knee|cap=RATIO",
            help="Point that -o gets: the knee, or the "
            "cheapest whose busiest GPU, mean over layers, is at most RATIO times the mean.",
        ),
    ] = "knee",
    out_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the plan of every point there.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Chart to write: .svg, or .png (needs matplotlib).")
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            parser=shared.choice(*AGAINST),
            metavar="imbalance|replicas|bytes-moved",
            help="What traffic is weighed against.",
        ),
    ] = "imbalance",
    points: Annotated[int, typer.Option(metavar="N", help="Searches, and most points; at least 3.")] = 9,
    slots_per_gpu: Annotated[
        int | None,
        typer.Option(
            metavar="C",
            help="Expert slots per GPU and layer; against replicas the most of them.  [default: E / G, rounded up]",
            show_default=False,
        ),
    ] = None,
    solver: Annotated[str, typer.Option(metavar="NAME", help="See `solvers`.")] = "auto",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Parameter of the solver; repeatable.")
    ] = None,
    num_groups: Annotated[
        int | None, typer.Option(metavar="N", help="Expert groups of the router (DeepSeek-V3: 8), for EPLB.")
    ] = None,
    execution: shared.ExecutionOption = "context_coherent",
    dedup: shared.DedupOption = "gpu",
    ownership: shared.OwnershipOption = "token",
    replica_policy: shared.ReplicaPolicyOption = None,
    activated_weight: shared.ActivatedWeightOption = 0.0,
    decode_batch: shared.DecodeBatchOption = 128,
    load_cap: Annotated[
        str, typer.Option(metavar="RATIO|none", help="Largest GPU load over the mean, in every layer: the front's end.")
    ] = "none",
    layer_load_cap: limited.LayerLoadCapOption = None,
    load_quantile: shared.LoadQuantileOption = None,
    load_groups: shared.LoadGroupsOption = None,
    extra_replicas: limited.ExtraReplicasOption = None,
    extra_bytes: limited.ExtraBytesOption = None,
    expert_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            help="Size of one expert's weights, to show bytes, for --extra-bytes and the GPUs' memory.",
        ),
    ] = None,
    hold_out: shared.HoldOutOption = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="S|none",
            help="Seconds for the whole front.  [default: 60; none with --work-limit]",
            show_default=False,
        ),
    ] = None,
    work_limit: Annotated[
        int | None, typer.Option(metavar="N", help="Trial changes in all: same seed, same front, on any machine.")
    ] = None,
    gap: Annotated[
        float | None, typer.Option(metavar="G", help="Stop each search at this gap: 0.02 for two per cent.")
    ] = None,
    stall: Annotated[
        float | None, typer.Option(metavar="S", help="Stop each search after so many seconds without a better plan.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the searches.")] = 0,
    seeds: shared.SeedsOption = 1,
    executor: shared.ExecutorOption = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="PLAN",
            help="Plan, or file of an engine, to start from, or, with --server, plan_...; against bytes moved, what "
            "runs now.",
        ),
    ] = None,
    pin: limited.PinOption = None,
    forbid: limited.ForbidOption = None,
    group: limited.GroupOption = None,
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
    """Find many plans at once: what less traffic costs in balance, in replicas, or in bytes moved."""
    if server is not None:
        refuse_options(reading.local_options(workers, executor, seeds, plan_format))
    constraints = limited.read_constraints(
        load_cap=load_cap,
        layer_load_cap=layer_load_cap,
        load_quantile=load_quantile,
        load_groups=load_groups,
        extra_replicas=extra_replicas,
        extra_bytes=extra_bytes,
        pin=pin,
        forbid=forbid,
        group=group,
    )
    wish = _read_pick(pick)
    time_s = DEFAULT_FRONT_TIME_S if work_limit is None else None
    if time_limit is not None:
        time_s = reading.number_or_none(time_limit, "--time-limit")
    parameters = reading.read_options(option or ())
    model = reading.read_model(model_config, model_layers, first_moe_layer, mtp_layers)
    source_options = reading.load_options(num_experts, layer_ids, format_name, model)

    from functools import partial

    import solvers
    from api.cli.outputs import Checks, check_outputs
    from api.fronts import check_chart, front_document, measure_front, write_chart
    from api.fronts import pick as pick_point
    from api.planning import PlanRequest, open_source, prepare
    from placement import Constraints

    source_options |= reading.row_options(top_k, drop_dummy)
    with Checks() as checks:
        checks.run(lambda: check_outputs({"--output": output, "--plot": plot}, (trace, start)))
        checks.run(lambda: check_chart(plot))
        checks.run(lambda: _check_folder(out_dir, (trace, start)))
        machine = checks.run(lambda: machine_of(topology, server))
        limits = checks.run(lambda: solvers.Limits(time_s=time_s, work=work_limit, gap=gap, stall_s=stall))
        first, remote = None, None
        if start is not None and server is not None:
            remote = named_plan(start, "--start")
        elif start is not None:
            known: dict[str, Any] = {"topology": machine, "model": model}
            known |= {"num_experts": num_experts, "layer_ids": layer_ids}
            first = checks.run(lambda: reading.read_placement(start, plan_format, **known))
        if server is None:
            source = checks.run(lambda: open_source(trace, **source_options))
    request = PlanRequest(
        topology=machine,
        slots_per_gpu=slots_per_gpu,
        solver=solver.replace("-", "_"),
        options=parameters,
        execution=execution,  # type: ignore[arg-type]  # Objective checks the word
        dedup=dedup,  # type: ignore[arg-type]  # Objective checks the word
        ownership=ownership,  # type: ignore[arg-type]  # Objective checks the word
        replica_policy=replica_policy,  # type: ignore[arg-type]  # Objective checks the word
        activated_weight=activated_weight,
        decode_batch=decode_batch,
        constraints=Constraints(**constraints),
        expert_bytes=expert_bytes,
        hold_out=hold_out,
        limits=limits,
        seed=seed,
        start=first,
    )
    restarts = reading.read_restarts(seeds, executor)
    asked: dict[str, Any] = {"against": against, "points": points, "num_groups": num_groups}
    with progress() as shown:
        if server is not None:
            from api.cli.remote.front import front_remotely

            document, plans = front_remotely(
                server, trace, source_options, request, start=remote, more=asked, shown=shown
            )
            best = pick_point(document, wish)
            _save(plans, best, out_dir, output)
        else:
            shown.phase("reading and profiling")
            prepared = prepare(source, request, workers=workers)
            shown.phase("searching")
            own: dict[str, Any] = {"solver": request.solver, "options": parameters, "limits": limits, "start": first}
            search = partial(solvers.front, prepared.problem, **own, **asked)
            if restarts is None:
                found = search(seed=seed, observe=shown.observe, workers=workers)
            else:
                from solvers.seeds import front_of_seeds

                found = front_of_seeds(
                    search,
                    seed,
                    restarts,
                    points=points,
                    workers=workers,
                    progress=lambda done: shown.phase(f"searching: {done} of {seeds} seeds"),
                )
            best = pick_point(found, wish)
            # Written before they are judged, as the search takes longest.
            _save([point.plan for point in found.points], best, out_dir, output)
            shown.phase("replaying tokens")
            document = front_document(prepared, found, measure_front(prepared, found, workers=workers))
        if plot is not None:
            write_chart(plot, document)
    document |= {
        "picked": best,
        "plan": None if output is None else str(output),
        "out_dir": None if out_dir is None else str(out_dir),
        "plot": None if plot is None else str(plot),
    }
    for note in document["notes"]:
        say(note, "note")
    if document["stopped"]:
        say("The search was stopped by hand; these are the points so far.", "note")
    for warning in document["points"][best]["warnings"]:
        say(warning, "warning")
    if as_json:
        print_json(document)
        return
    count = len(document["points"])
    write(f"{count} plans after {document['elapsed_s']:.1f} s, none of them beaten in both figures.\n")
    write(_table(document) + "\n")
    for name, path in (("Picked plan", output), ("Plans", out_dir), ("Chart", plot)):
        if path is not None:
            write(f"{name} written to {path}")


def _save(plans: Sequence[Plan], best: int, out_dir: Path | None, output: Path | None) -> None:
    """Write the plans of all points, and the picked one."""
    if out_dir is not None:
        for number, plan in enumerate(plans):
            plan.save(out_dir / f"point-{number:02d}.json")
    if output is not None:
        plans[best].save(output)


def _read_pick(text: str) -> str | float:
    """Read ``knee`` or ``cap=1.05``."""
    word, equals, value = text.strip().lower().partition("=")
    if word == "knee" and not equals:
        return word
    try:
        if word == "cap" and equals:
            return float(value)
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is neither knee nor cap=RATIO, such as cap=1.05.", param_hint="--pick")


def _check_folder(folder: Path | None, inputs: tuple[Path | None, ...]) -> None:
    """Make the folder for the plans, or say why it can't be; no point may overwrite an input."""
    if folder is None:
        return
    from traces import InputError

    for path in inputs:
        if path is not None and path.resolve().parent == folder.resolve() and path.name.startswith("point-"):
            detail = f"{path.name} is read, and would be overwritten by a plan of the front."
            raise InputError.of("overwrites_input", str(folder), detail, "Give --out-dir another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        detail = f"--out-dir can't be made: {error.strerror}."
        raise InputError.of("cannot_write", str(folder), detail, "Name a folder that can be written.") from error


def _table(document: dict[str, Any]) -> str:
    """Return the points, one a row: fitted figures, then the same on held-out tokens where there are any."""
    first = document["points"][0]["fit"] or {}
    remote = first.get("remote_nodes") is not None
    beyond = ["remote_gpus", "remote_nodes"] if remote else ["cross_gpu_fraction", "cross_node_fraction"]
    beyond += [] if first.get("activated_experts") is None else ["activated_experts"]
    header = ["point", "traffic\nfitted", "max/mean\nfitted", "worst\nlayer"]
    parts = [name for name in ("fit", "held_out") if document["points"][0][name] is not None]
    if "held_out" in parts:
        header += [
            "traffic\nheld out",
            "max/mean\nheld out",
            *(f"{name.replace('_fraction', '')}\nheld out" for name in beyond),
        ]
    elif parts:
        header += [name.replace("_fraction", "") for name in beyond]
    costs = [] if document["against"] == "imbalance" else ["score"]  # there the traffic is the cost
    header += costs
    columns = ["slots_per_gpu", "redundant_experts"] if document["against"] == "replicas" else []
    columns += ["extra_bytes"] if columns and document["points"][0]["extra_bytes"] is not None else []
    columns += [name for name in ("moved_experts", "moved_bytes") if document["points"][0][name] is not None]
    header += [name.replace("_", "\n", 1).replace("_", " ") for name in columns]
    rows = []
    for number, point in enumerate(document["points"]):
        marks = [word for word in ("knee", "picked") if document[word] == number]
        row = [
            f"{number} {' '.join(marks)}".strip(),
            *(f"{point[key]:.4f}" for key in ("traffic", "imbalance", "worst_layer")),
        ]
        if "held_out" in parts:
            held = point["held_out"]
            row += [f"{held[key]:.4f}" for key in ("traffic", "imbalance_max_over_mean", *beyond)]
        elif parts:
            row += [f"{point['fit'][key]:.4f}" for key in beyond]
        row += [f"{point[name]:.4f}" for name in costs]
        rows.append([*row, *(f"{point[name]:,}" for name in columns)])
    return table(header, rows)

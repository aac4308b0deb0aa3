"""``moe-placement solve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import constraints as limited
from api.cli import options as shared
from api.cli import reading
from api.cli.console import Json, say
from api.cli.remote.service import ServerOption, machine_of, named_plan, refuse_options

__all__ = ["solve"]

DEFAULT_TIME_S = 10.0


def solve(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace, saved profile or load matrix.")],
    topology: shared.TopologyOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Plan file to write (JSON).")
    ] = None,
    slots_per_gpu: Annotated[
        int | None,
        typer.Option(
            metavar="C", help="Expert slots per GPU and layer.  [default: E / G, rounded up]", show_default=False
        ),
    ] = None,
    solver: Annotated[str, typer.Option(metavar="NAME", help="See `solvers`.")] = "auto",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Parameter of the solver; repeatable.")
    ] = None,
    execution: shared.ExecutionOption = "context_coherent",
    dedup: shared.DedupOption = "gpu",
    ownership: shared.OwnershipOption = "token",
    replica_policy: shared.ReplicaPolicyOption = None,
    activated_weight: shared.ActivatedWeightOption = 0.0,
    decode_batch: shared.DecodeBatchOption = 128,
    load_cap: shared.LoadCapOption = "none",
    layer_load_cap: limited.LayerLoadCapOption = None,
    load_quantile: shared.LoadQuantileOption = None,
    load_groups: shared.LoadGroupsOption = None,
    extra_replicas: limited.ExtraReplicasOption = None,
    extra_bytes: limited.ExtraBytesOption = None,
    expert_bytes: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Size of one expert's weights, for --extra-bytes and the GPUs' memory."),
    ] = None,
    hold_out: shared.HoldOutOption = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="S|none", help="Seconds to search.  [default: 10; none with --work-limit]", show_default=False
        ),
    ] = None,
    work_limit: Annotated[
        int | None, typer.Option(metavar="N", help="Trial changes: same seed, same plan, on any machine.")
    ] = None,
    gap: Annotated[float | None, typer.Option(metavar="G", help="Stop at this gap: 0.02 for two per cent.")] = None,
    stall: Annotated[
        float | None, typer.Option(metavar="S", help="Stop after so many seconds without a better plan.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the search.")] = 0,
    seeds: shared.SeedsOption = 1,
    executor: shared.ExecutorOption = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="PLAN", help="Plan, or file of an engine, to start from; with --server, plan_..."),
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
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML report to write.")] = None,
    as_json: Json = False,
) -> None:
    """Find a plan for a trace, and compare it with the contiguous one on tokens fitted and held out."""
    if server is not None:
        refuse_options({"--report": report} | reading.local_options(workers, executor, seeds, plan_format))
    time_s = DEFAULT_TIME_S if work_limit is None else None
    if time_limit is not None:
        time_s = reading.number_or_none(time_limit, "--time-limit")
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
    parameters = reading.read_options(option or ())
    model = reading.read_model(model_config, model_layers, first_moe_layer, mtp_layers)
    source_options = reading.load_options(num_experts, layer_ids, format_name, model)

    from api.cli.outputs import Checks, check_outputs
    from api.cli.planned import plan_and_tell
    from api.planning import PlanRequest, open_source
    from placement import Constraints
    from solvers import Limits

    source_options |= reading.row_options(top_k, drop_dummy)
    with Checks() as checks:
        checks.run(lambda: check_outputs({"--output": output, "--report": report}, (trace, start)))
        machine = checks.run(lambda: machine_of(topology, server))
        limits = checks.run(lambda: Limits(time_s=time_s, work=work_limit, gap=gap, stall_s=stall))
        first, remote = None, None
        if start is not None and server is None:
            known: dict[str, Any] = {"topology": machine, "model": model}
            known |= {"num_experts": num_experts, "layer_ids": layer_ids}
            first = checks.run(lambda: reading.read_placement(start, plan_format, **known))
        if start is not None and server is not None:
            remote = named_plan(start, "--start")
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
    if output is None:
        say("The plan will not be written: there is no -o.", "note")
    if server is not None:
        from api.cli.remote.plan import plan_remotely

        plan_remotely(server, trace, source_options, request, start=remote, output=output, as_json=as_json)
        return
    plan_and_tell(source, request, output=output, report=report, workers=workers, as_json=as_json, restarts=restarts)

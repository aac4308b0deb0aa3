"""``moe-placement export`` and ``moe-placement check``: placement files for engines, and existing ones examined."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli import reading
from api.cli.console import BAD_INPUT, Json, print_json, say, write
from api.cli.remote.service import ServerOption, fetch_plan, named_plan, refuse_options, service_at

if TYPE_CHECKING:
    from placement import Plan
    from placement.exports import Context

__all__ = ["Output", "check", "export", "facts_of", "placement_context", "write_placement"]

Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")]
Engine = Annotated[str, typer.Option(metavar="NAME", help="Format to write (see `formats`): sglang, trtllm, ...")]
FillMissing = Annotated[
    bool, typer.Option("--fill-missing", help="Give layers that the plan lacks the contiguous layout.")
]
WithoutMtp = Annotated[
    bool, typer.Option("--without-mtp", help="The engine runs without multi-token prediction: leave its layers out.")
]
Layer = Annotated[int | None, typer.Option(metavar="N", help="The one layer to write; for deepspeed.")]
ModelClass = Annotated[str | None, typer.Option(metavar="NAME", help="Engine's class of the model; for hygon.")]
MtpModelClass = Annotated[
    str | None, typer.Option(metavar="NAME", help="Engine's class for multi-token prediction; for hygon.")
]
ModelName = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model; for hygon.")]
Where = Annotated[
    str | None,
    typer.Option(metavar="NxG", help="The machine, for files that don't state the number of GPUs."),
]


def export(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="Plan, or placement file of an engine; with --server plan_...")
    ],
    engine: Engine,
    output: Output,
    fill_missing: FillMissing = False,
    without_mtp: WithoutMtp = False,
    layer: Layer = None,
    model_class: ModelClass = None,
    mtp_model_class: MtpModelClass = None,
    model_name: ModelName = None,
    topology: Where = None,
    plan_format: shared.PlanFormatOption = None,
    num_experts: shared.NumExpertsOption = None,
    layer_ids: shared.LayerIdsOption = None,
    model_config: shared.ModelConfigOption = None,
    model_layers: shared.ModelLayersOption = None,
    first_moe_layer: shared.FirstMoeLayerOption = None,
    mtp_layers: shared.MtpLayersOption = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Write a plan as the file that an engine loads; refuse what the engine would reject or misread."""
    if server is not None:
        named_plan(plan, "PLAN")
        refuse_options({"--plan-format": plan_format})
    model = reading.read_model(model_config, model_layers, first_moe_layer, mtp_layers)

    from api.cli.outputs import check_outputs

    check_outputs({"--output": output}, (plan, model_config))
    names = {"model_class": model_class, "mtp_model_class": mtp_model_class, "model_name": model_name}
    writing = {"fill_missing": fill_missing, "without_mtp": without_mtp, "layer": layer} | names
    context = placement_context(topology, model, num_experts, layer_ids, **writing)
    with TemporaryDirectory() as folder:
        if server is not None:
            with service_at(server) as service:
                plan = fetch_plan(service, str(plan), Path(folder))
        write_placement(plan, plan_format, context, engine, output, as_json=as_json)


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Placement file of any engine.")],
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="Format that it should have; found by content by default.")
    ] = None,
    without_mtp: WithoutMtp = False,
    model_class: ModelClass = None,
    mtp_model_class: MtpModelClass = None,
    topology: Where = None,
    num_experts: shared.NumExpertsOption = None,
    layer_ids: shared.LayerIdsOption = None,
    model_config: shared.ModelConfigOption = None,
    model_layers: shared.ModelLayersOption = None,
    first_moe_layer: shared.FirstMoeLayerOption = None,
    mtp_layers: shared.MtpLayersOption = None,
    as_json: Json = False,
) -> None:
    """Tell everything in a placement file that its engine would reject or misread; exit code 1 if there is anything."""
    model = reading.read_model(model_config, model_layers, first_moe_layer, mtp_layers)

    from placement.exports import Document, export_named, recognised

    document = Document.of(file)
    form = recognised(document) if engine is None else export_named(engine)
    names = {"model_class": model_class, "mtp_model_class": mtp_model_class}
    context = placement_context(topology, model, num_experts, layer_ids, without_mtp=without_mtp, **names)
    found, notes = form.check(document, context)
    for violation in found.found:
        say(str(violation), "error")
    for note in notes:
        say(note, "note")
    if as_json:
        violations = [violation.as_dict() for violation in found.found]
        both = {"format": form.name, "engine": form.engine, "notes": list(notes)}
        print_json({"file": str(file), "valid": not violations, "violations": violations} | both)
    elif not found.found:
        write(f"{file}: a valid file of {form.engine} ({form.name}).")
    if found.found:
        raise typer.Exit(BAD_INPUT)


def placement_context(
    topology: str | None, model: Any, num_experts: int | None, layer_ids: str | None, **writing: Any
) -> Context:
    """Return what the options say about a placement file."""
    from placement.exports import Context

    layers = reading.read_layer_ids(layer_ids)
    return Context(
        model=model,
        layer_ids=None if layers is None else tuple(layers),
        num_experts=num_experts,
        gpus_per_node=None if topology is None else reading.read_topology(topology).gpus_per_node,
        **writing,
    )


def write_placement(
    source: Path, source_format: str | None, context: Context, name: str, output: Path, *, as_json: bool
) -> None:
    """Read a placement file of any format and write it as another; tell what was written and how it is loaded."""
    from placement.exports import convert_placement, export_named
    from traces import InputError
    from traces.support.atomic import atomic_write

    form = export_named(name)
    if form.by_suffix and not output.name.endswith(form.suffix):
        detail = f"{form.engine} goes by the file's name, which has to end in {form.suffix}."
        raise InputError.of("output_suffix", str(output), detail, f"Name it {output.name}{form.suffix}.")
    plan, exported = convert_placement(source, name, context, format=source_format)
    if context.num_gpus not in (None, plan.num_gpus):
        detail = f"The plan is for {plan.num_gpus} GPUs, the topology has {context.num_gpus}."
        raise InputError.of("num_gpus_differ", str(source), detail, "Name the machine that the plan was made for.")
    with atomic_write(output) as file:
        file.write(exported.content)
    notes = list(exported.notes)
    for note in notes:
        say(note, "note")
    usage = form.load_with(str(output), plan)
    if as_json:
        told = {"file": str(output), "format": form.name, "engine": form.engine, "load": usage, "notes": notes}
        print_json(told | facts_of(plan))
        return
    write(f"{output} written for {form.engine} ({form.name}).\nLoad it with: {usage}")


def facts_of(plan: Plan) -> dict[str, Any]:
    """Return the sizes of a plan."""
    return {
        "layers": plan.num_layers,
        "num_experts": plan.num_experts,
        "num_gpus": plan.num_gpus,
        "slots_per_gpu": plan.slots_per_gpu,
        "redundant_experts": plan.physical_to_logical_map.shape[1] - plan.num_experts,
    }

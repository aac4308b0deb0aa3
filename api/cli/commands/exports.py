"""``moe-placement export``: placement files for engines."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.knobs import MACHINE, OUTPUT
from api.cli.options import output_option
from api.cli.reading import TraceReading, read_topology
from api.cli.remote.service import ServerOption, fetch_plan, named_plan, refuse_options, service_at
from api.cli.texts import wholes

if TYPE_CHECKING:
    from placement import Plan
    from placement.engines import Engine
    from placement.exports import Context, Export

__all__ = [
    "LAYOUT_OPTIONS",
    "ModelClass",
    "MtpModelClass",
    "Where",
    "WithoutMtp",
    "export",
    "form_of",
    "placement_context",
    "write_placement",
]

LAYOUT_OPTIONS = ("model", "num_experts", "layer_ids", "model_layers", "first_moe_layer", "moe_layers", "mtp_layers")
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
PipelineStages = Annotated[
    str | None,
    typer.Option(
        parser=wholes, metavar="N,N", help="Layers of the model in each stage of its pipeline, as 30,31; for hygon."
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="NxG", rich_help_panel=MACHINE, help="The machine, for files that don't state the number of GPUs."
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", rich_help_panel=OUTPUT, help="Write it even for an engine whose tokens travel another way."
    ),
]


@asks(TraceReading, "reading", only=LAYOUT_OPTIONS)
def export(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="Plan, or placement file of an engine; with --server plan_...")
    ],
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="Engine, or format to write (see `formats`): sglang, trtllm, ...")
    ],
    reading: Asked,
    output: Annotated[Path, output_option("--output", "-o", metavar="FILE", text="File to write.")],
    fill_missing: FillMissing = False,
    without_mtp: WithoutMtp = False,
    layer: Layer = None,
    model_class: ModelClass = None,
    mtp_model_class: MtpModelClass = None,
    model_name: ModelName = None,
    pipeline_stages: PipelineStages = None,
    topology: Where = None,
    plan_format: shared.PlanFormatOption = None,
    force: Force = False,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Write a plan as the file that an engine loads; refuse what the engine would reject or misread."""
    from api.cli.outputs import Checks, check_outputs

    if server is not None:
        named_plan(plan, "PLAN")
        refuse_options({"--plan-format": plan_format})
    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: check_outputs({"--output": output}, (plan, reading.get("model"))))
    names: dict[str, Any] = {"model_class": model_class, "mtp_model_class": mtp_model_class, "model_name": model_name}
    names |= {"pipeline_stages": pipeline_stages}
    writing = {"fill_missing": fill_missing, "without_mtp": without_mtp, "layer": layer} | names
    context = placement_context(topology, read, **writing)
    form, target = form_of(engine, "/engine")
    with TemporaryDirectory() as folder:
        if server is not None:
            with service_at(server) as service:
                plan = fetch_plan(service, str(plan), Path(folder))
        write_placement(plan, plan_format, context, form, target, output, force=force, as_json=as_json)


def form_of(text: str, pointer: str) -> tuple[Export, Engine | None]:
    """Return the format that a text names, or that the engine of this name loads, and the engine, if one loads it.

    Raises
    ------
    InputError
    """
    from placement.engines import ENGINES, engine_of, engine_of_export
    from placement.exports import EXPORTS, export_named
    from traces import InputError

    form = next((export for export in EXPORTS if export.is_named(text)), None)
    if form is not None:
        return form, engine_of_export(form.name)
    try:
        engine = engine_of(text).engine
    except InputError as error:
        if error.violations[0].code != "unknown_engine":
            raise
        detail = f"There is no engine and no placement format {text!r:.60}."
        formats = ", ".join(export.name for export in EXPORTS)
        remedy = f"Engines are {', '.join(ENGINES)}; formats are {formats}."
        raise InputError.of("unknown_format", pointer, detail, remedy) from None
    if engine.export is None:
        detail = f"{engine.title} {engine.version} loads no placement file."
        raise InputError.of("no_export", pointer, detail, "Choose a format; `moe-placement formats` lists them.")
    form = export_named(engine.export)
    say(f"{engine.title} {engine.version} goes by {form.name}: {form.content}.", "note")
    return form, engine


def placement_context(topology: str | None, read: TraceReading, **writing: Any) -> Context:
    """Return what the options say about a placement file."""
    from placement.exports import Context

    return Context(
        model=read.layout(),
        layer_ids=read.named_layers(),
        num_experts=read.num_experts,
        gpus_per_node=None if topology is None else read_topology(topology).gpus_per_node,
        **writing,
    )


def write_placement(
    source: Path,
    source_format: str | None,
    context: Context,
    form: Export,
    engine: Engine | None,
    output: Path,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Read a placement file of any format and write it as another; tell what was written and how it is loaded."""
    from placement.engines import check_travel
    from placement.exports import convert_placement
    from traces import InputError
    from traces.support.atomic import atomic_write

    if form.by_suffix and not output.name.endswith(form.suffix):
        detail = f"{form.engine} goes by the file's name, which has to end in {form.suffix}."
        raise InputError.of("output_suffix", str(output), detail, f"Name it {output.name}{form.suffix}.")
    plan, exported = convert_placement(source, form.name, context, format=source_format)
    if context.num_gpus not in (None, plan.num_gpus):
        detail = f"The plan is for {plan.num_gpus} GPUs, the topology has {context.num_gpus}."
        raise InputError.of("num_gpus_differ", str(source), detail, "Name the machine that the plan was made for.")
    if engine is not None:
        try:
            check_travel(plan.provenance, engine)
        except InputError as error:
            if not force:
                raise
            say(error.violations[0].detail, "warning")
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

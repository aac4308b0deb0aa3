"""How a placement file is written, as options; and the file itself, read in one format and written in another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import doc

from api.cli.console import print_json, say, write
from api.cli.knobs import OUTPUT
from api.cli.reading import TraceReading, read_topology
from api.cli.texts import wholes

if TYPE_CHECKING:
    from placement import Plan
    from placement.engines import Engine
    from placement.exports import Context, Export

__all__ = ["LAYOUT_OPTIONS", "Force", "PlacementWriting", "form_of", "write_placement"]

LAYOUT_OPTIONS = ("model", "num_experts", "layer_ids", "model_layers", "first_moe_layer", "moe_layers", "mtp_layers")
Force = Annotated[
    bool,
    typer.Option(
        "--force", rich_help_panel=OUTPUT, help="Write it even for an engine whose tokens travel another way."
    ),
]


@dataclass(frozen=True, kw_only=True)
class PlacementWriting:
    """What a placement file does not say, and how another is written from it; see `placement.exports.Context`.

    Attributes
    ----------
    topology : str or None
    fill_missing, without_mtp : bool
    layer : int or None
    model_class, mtp_model_class, model_name : str or None
    pipeline_stages : str or None
        Whole numbers, ``30,31``.
    """

    topology: Annotated[str | None, doc("The machine, for files that don't state the number of GPUs.")] = None
    fill_missing: Annotated[bool, doc("Give layers that the plan lacks the contiguous layout.")] = False
    without_mtp: Annotated[bool, doc("The engine runs without multi-token prediction: leave its layers out.")] = False
    layer: Annotated[int | None, doc("The one layer to write; for deepspeed.")] = None
    model_class: Annotated[str | None, doc("Engine's class of the model; for hygon.")] = None
    mtp_model_class: Annotated[str | None, doc("Engine's class for multi-token prediction; for hygon.")] = None
    model_name: Annotated[str | None, doc("Name of the model; for hygon.")] = None
    pipeline_stages: Annotated[
        str | None, doc("Layers of the model in each stage of its pipeline, as 30,31; for hygon.")
    ] = None

    def __post_init__(self) -> None:
        self.stages()  # wrong usage is told before any file is opened

    def stages(self) -> tuple[int, ...] | None:
        """Return the layers of each stage; None where nobody says them."""
        return None if self.pipeline_stages is None else wholes(self.pipeline_stages)

    def context(self, read: TraceReading) -> Context:
        """Return what the options say about a placement file."""
        from placement.exports import Context

        return Context(
            model=read.layout(),
            layer_ids=read.named_layers(),
            num_experts=read.num_experts,
            gpus_per_node=None if self.topology is None else read_topology(self.topology).gpus_per_node,
            fill_missing=self.fill_missing,
            without_mtp=self.without_mtp,
            layer=self.layer,
            model_class=self.model_class,
            mtp_model_class=self.mtp_model_class,
            model_name=self.model_name,
            pipeline_stages=self.stages(),
        )


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

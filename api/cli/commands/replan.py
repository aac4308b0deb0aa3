"""``moe-placement replan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.knobs import MACHINE
from api.cli.options import output_option
from api.cli.progress import progress
from api.cli.reading import TraceReading, open_planned, read_topology
from api.cli.texts import wholes
from solvers.replanning.request import ReplanRequest

if TYPE_CHECKING:
    from placement import Plan
    from solvers import Replan
    from traces import ModelLayout

__all__ = ["replan"]


@asks(
    TraceReading, "reading", without=("model", "phase", "model_layers", "first_moe_layer", "moe_layers", "mtp_layers")
)
@asks(ReplanRequest, without=("dead_gpus",))
def replan(
    running: Annotated[
        Path, typer.Argument(metavar="RUNNING", help="Plan that runs now, or an engine's placement file.")
    ],
    trace: shared.TraceArgument,
    asked: Asked,
    reading: Asked,
    dead_gpus: Annotated[
        str | None,
        typer.Option(
            metavar="N,N", rich_help_panel=MACHINE, help="Ranks that are gone, or about to go: 3,7.", show_default=False
        ),
    ] = None,
    running_topology: Annotated[
        str | None,
        typer.Option(
            metavar="NxG",
            rich_help_panel=MACHINE,
            help="Machine that RUNNING was made for, if it is an engine's file and GPUs have come since.",
            show_default=False,
        ),
    ] = None,
    plan_format: shared.PlanFormatOption = None,
    workers: shared.WorkersOption = None,
    output: Annotated[
        Path | None, output_option("--output", "-o", metavar="FILE", text="Plan to change to, to write (JSON).")
    ] = None,
    rollout: Annotated[
        Path | None,
        output_option(
            "--rollout", metavar="DIR", text="Steps to write: rollout.json, a plan per step, and the engine's files."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether to leave the plan that runs, or how to change it with few moves, and in which steps.

    Plans are found on one part of the trace and judged on the other. With machine and model, what a plan gains over the
    horizon is weighed against the engine's stall and the bytes that move.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.report.replan import replan_text
    from solvers import replan as run
    from traces.model.presets import load_model

    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: check_outputs({"--output": output}, (trace, running)))
        checks.run(lambda: _check_folder(rollout))
        layout: Any = None
        if (name := asked.get("model")) is not None and (model := checks.run(lambda: load_model(name))) is not None:
            layout = model.layout
        plan: Any = None
        if read is not None:
            known = {"model": layout, "num_experts": read.num_experts, "layer_ids": read.named_layers()}
            plan = checks.run(lambda: _read(running, plan_format, asked, running_topology, known))
        source: Any = None if read is None else checks.run(lambda: open_planned(trace, read, layout))
        dead = () if dead_gpus is None else wholes(dead_gpus)
        request = asked.build(checks, dead_gpus=dead, **_topology(asked, checks))
    with progress() as shown:
        found: Replan = run(plan, source, request=request, workers=workers, tell=shown.phase)
        if output is not None:
            found.plan.save(output)
        files = [] if rollout is None else _write_steps(found, rollout, request.engine, layout)
    if output is not None:
        say(f"Plan written to {output}", "note")
    if rollout is not None:
        say(f"{len(found.plans)} steps written to {rollout}", "note")
    if as_json:
        document = found.as_dict()
        for step, names in zip(document["steps"], files, strict=False):
            step["files"] = names
        print_json(document)
        return
    write(replan_text(found))


def _topology(asked: Asked, checks: Any) -> dict[str, Any]:
    """Return the machine that was named by its shorthand or file, read."""
    text = asked.get("topology")
    return {} if text is None else {"topology": checks.run(lambda: read_topology(text))}


def _read(path: Path, plan_format: str | None, asked: Asked, ran_on: str | None, known: dict[str, Any]) -> Plan:
    from api.cli.placements import read_placement
    from placement.time import Machine

    topology = None
    if ran_on is not None:
        topology = read_topology(ran_on)
    elif (machine := asked.get("machine")) is not None:
        topology = Machine.parse(machine).topology()
    elif (text := asked.get("topology")) is not None:
        topology = read_topology(text)
    return read_placement(path, plan_format, topology=topology, **known)


def _check_folder(folder: Path | None) -> None:
    from traces import InputError

    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        detail = "Files of another rollout would lie between those of this one."
        raise InputError.of("folder_taken", str(folder), detail, "Name a new or an empty folder for --rollout.")


def _write_steps(found: Replan, folder: Path, engine: str | None, model: ModelLayout | None) -> list[list[str]]:
    """Write the plans of the steps, those that the engine loads, and the list of all; return their names by step."""
    import json

    from placement.engines import engine_of
    from placement.exports import export_named
    from traces import InputError

    folder.mkdir(parents=True, exist_ok=True)
    form = None
    if engine is not None and (name := engine_of(engine).engine.export) is not None:
        form = export_named(name)
    names: list[list[str]] = []
    for number, plan in enumerate(found.plans, 1):
        own = f"step-{number:03}.plan.json"
        plan.save(folder / own)
        names.append([own])
        if form is not None:
            engines = f"step-{number:03}.{form.name}{form.suffix}"
            try:
                plan.export(form.name, folder / engines, model=model)
            except InputError as error:
                say(f"No files for {form.engine}: {error.violations[0].detail}", "warning")
                form = None
                continue
            names[-1].append(engines)
    steps = found.steps()
    for step, files in zip(steps, names, strict=True):
        step["files"] = files
    text = json.dumps({"format": "moe-placement.rollout", "version": 1, "steps": steps}, indent=1)
    (folder / "rollout.json").write_text(text + "\n")
    return names

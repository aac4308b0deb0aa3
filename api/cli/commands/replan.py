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
from api.cli.reading import TraceReading, open_planned
from api.cli.remote.service import ServerOption, is_plan, machine_of, refuse_options
from api.cli.texts import wholes
from solvers.replanning.request import ReplanRequest

if TYPE_CHECKING:
    from api.cli.progress import Progress
    from placement import Plan
    from solvers.sources.source import Source
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
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Say whether to leave the plan that runs, or how to change it with few moves, and in which steps.

    Plans are found on one part of the trace and judged on the other. With machine and model, what a plan gains over the
    horizon is weighed against the engine's stall and the bytes that move.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.report.replan import replan_text
    from traces.model.presets import load_model

    if server is not None:
        own_format = plan_format if is_plan(running) else None
        refuse_options({"--workers": workers, "--plan-format": own_format})
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
            plan = checks.run(lambda: _running(running, plan_format, asked, running_topology, known, server))
        dead = () if dead_gpus is None else wholes(dead_gpus)
        apart: dict[str, Any] = {"dead_gpus": dead}
        if (text := asked.get("topology")) is not None:
            apart["topology"] = checks.run(lambda: machine_of(text, server))
        request: Any = asked.build(checks, **apart)
        if read is not None:
            given: Any = checks.run(lambda: _given(trace, read, layout, server))
    with progress() as shown:
        found = _here(plan, given, request, workers, shown) if server is None else None
        if server is not None:
            from api.cli.remote.replan import replan_remotely
            from placement.topology.file import topology_to_dict

            body = asked.plain() | {"dead_gpus": list(dead)}
            if "topology" in apart:
                body["topology"] = topology_to_dict(apart["topology"])
            found = replan_remotely(server, plan, trace, given, body, shown=shown)
        assert found is not None
        document, chosen, plans = found
        if output is not None:
            chosen.save(output)
        if rollout is not None:
            _write_steps(document["steps"], plans, rollout, request.engine, layout)
    if output is not None:
        say(f"Plan written to {output}", "note")
    if rollout is not None:
        say(f"{len(plans)} steps written to {rollout}", "note")
    if as_json:
        print_json(document)
        return
    write(replan_text(document))


def _here(
    plan: Plan, source: Source, request: ReplanRequest, workers: int | None, shown: Progress
) -> tuple[dict[str, Any], Plan, list[Plan]]:
    """Re-plan in this process; return the document, the plan to change to, and the plan after each step."""
    from solvers import replan as run

    found = run(plan, source, request=request, workers=workers, tell=shown.phase)
    return found.as_dict(), found.plan, list(found.plans)


def _given(trace: Path, read: TraceReading, layout: ModelLayout | None, server: str | None) -> Any:
    """Return the trace, opened; with a service, how it is to be read."""
    if server is None:
        return open_planned(trace, read, layout)
    from api.cli.remote.trace import reading_of

    return reading_of(trace, read, layout)


def _running(
    path: Path, plan_format: str | None, asked: Asked, ran_on: str | None, known: dict[str, Any], server: str | None
) -> str | Plan:
    """Read the plan that runs; one that the service has is named by its id."""
    from api.cli.placements import read_placement
    from placement.time import Machine

    if server is not None and is_plan(path):
        return str(path)
    topology = None
    if ran_on is not None:
        topology = machine_of(ran_on, server)
    elif (machine := asked.get("machine")) is not None:
        topology = Machine.parse(machine).topology()
    elif (text := asked.get("topology")) is not None:
        topology = machine_of(text, server)
    return read_placement(path, plan_format, topology=topology, **known)


def _check_folder(folder: Path | None) -> None:
    from traces import InputError

    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        detail = "Files of another rollout would lie between those of this one."
        raise InputError.of("folder_taken", str(folder), detail, "Name a new or an empty folder for --rollout.")


def _write_steps(
    steps: list[dict[str, Any]], plans: list[Plan], folder: Path, engine: str | None, model: ModelLayout | None
) -> None:
    """Write the plan after each step, those that the engine loads, and the list of all; steps get their ``files``."""
    import json

    from placement.engines import engine_of
    from placement.exports import export_named
    from traces import InputError

    folder.mkdir(parents=True, exist_ok=True)
    form = None
    if engine is not None and (name := engine_of(engine).engine.export) is not None:
        form = export_named(name)
    for step, plan in zip(steps, plans, strict=True):
        own = f"step-{step['step']:03}.plan.json"
        plan.save(folder / own)
        step["files"] = [own]
        if form is not None:
            engines = f"step-{step['step']:03}.{form.name}{form.suffix}"
            try:
                plan.export(form.name, folder / engines, model=model)
            except InputError as error:
                say(f"No files for {form.engine}: {error.violations[0].detail}", "warning")
                form = None
                continue
            step["files"].append(engines)
    text = json.dumps({"format": "moe-placement.rollout", "version": 1, "steps": steps}, indent=1)
    (folder / "rollout.json").write_text(text + "\n")

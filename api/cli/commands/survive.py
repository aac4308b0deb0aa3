"""``moe-placement survive``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.knobs import OUTPUT, WHAT
from api.cli.reading import TraceReading
from api.cli.remote.service import ServerOption, is_plan, machine_of, refuse_options
from solvers.failures.request import FailureRequest

if TYPE_CHECKING:
    from placement import Plan, Topology

__all__ = ["survive"]


@asks(TraceReading, "reading", without=("model", "phase", "layer_base"))
@asks(FailureRequest)
def survive(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="Plan file.")],
    asked: Asked,
    reading: Asked,
    trace: Annotated[Path | None, typer.Argument(metavar="[TRACE]", help="Tokens or counts, for loads.")] = None,
    schedule: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=WHAT,
            help='Failures and joins to go through (JSON): [{"at": 10, "fail": 3}, {"at": 50, "join": 3}].',
        ),
    ] = None,
    prepare: Annotated[
        Path | None, typer.Option(metavar="DIR", rich_help_panel=OUTPUT, help="Folder for a plan per failing unit.")
    ] = None,
    workers: shared.WorkersOption = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Prove that a plan survives failures, or name the failing set, and prepare plans for what is left.

    Says for every unit that may fail which experts are lost, and what has to be loaded where.
    """
    from api.cli.outputs import Checks
    from api.report.survive import survive_document, survive_text
    from placement import Plan as APlan

    if server is not None:
        refuse_options({"--workers": workers})
    known_there = server is not None and is_plan(plan)
    with Checks() as checks:
        read = reading.build(checks)
        request: Any = asked.build(checks)
        running: Any = str(plan) if known_there else checks.run(lambda: APlan.load(plan))
        topology: Any = None
        if running is not None and request is not None and (request.topology is not None or not known_there):
            topology = checks.run(lambda: _topology(running, request.topology, server))
        events: Any = None if schedule is None else checks.run(lambda: _events(schedule))
        load: Any = None
        if server is None and trace is not None and read is not None and running is not None:
            load = checks.run(lambda: _load(trace, read, running, workers))
    if server is None:
        found = survive_document(running, topology, request, load, events)
    else:
        from api.cli.remote.survival import survive_remotely
        from placement.topology.file import topology_to_dict

        body = asked.plain()
        if topology is not None:
            body["topology"] = topology_to_dict(topology)
        if events is not None:
            body["schedule"] = [{"at": each.at, each.what: each.number} for each in events]
        options = read.load_options(None)
        found = survive_remotely(server, running, trace, options, body, prepared=prepare is not None)
    if prepare is not None:
        found["prepared"] = _write(prepare, found["degraded"], request)
    if as_json:
        for each in found["degraded"]:
            each.pop("plan")
        print_json(found)
        return
    write(survive_text(found))
    for path in found.get("prepared", []):
        say(f"Plan written to {path}", "note")


def _topology(plan: Plan, name: str | None, server: str | None) -> Topology:
    from placement.replay.choices import recorded_topology
    from traces import InputError

    found = recorded_topology(plan, "/plan") if name is None else machine_of(name, server)
    if found is None:
        detail = "The plan does not record the topology that it was made for."
        raise InputError.of("topology_unknown", "/topology", detail, "Give one, 4x8 for instance.")
    return found


def _events(path: Path) -> Any:
    from placement.support.json_files import read_json
    from solvers.failures.schedule import events_of

    return events_of(read_json(path))


def _load(trace: Path, read: TraceReading, plan: Plan, workers: int | None) -> Any:
    from solvers.sources.source import open_source
    from traces import InputError, Profile

    opened = open_source(trace, **read.load_options(None))
    profile = opened if isinstance(opened, Profile) else Profile.of(opened, workers=workers)
    if profile.layer_ids.tolist() != plan.layer_ids.tolist() or profile.num_experts != plan.num_experts:
        detail = f"{trace.name} has other layers or experts than the plan."
        raise InputError.of("plan_differs", "/trace", detail, "Give a trace of the model that the plan is for.")
    return profile.load


def _write(folder: Path, found: list[dict[str, Any]], request: FailureRequest) -> list[str]:
    """Write the plan of each unit for which there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for each in found:
        if each["plan"] is not None:
            path = folder / f"without-{each['unit'].lower()}-{each['number']}.plan.json"
            each["plan"].save(path)
            written.append(str(path))
    return written

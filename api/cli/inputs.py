"""What ``solve`` and ``front`` are given: the trace, the request, the model, where results go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from api.cli.placements import read_placement
from api.cli.reading import TraceReading, open_planned
from api.cli.remote.service import machine_of, named_plan

if TYPE_CHECKING:
    from api.cli.declared import Asked
    from api.cli.outputs import Checks
    from placement import Topology
    from solvers import Request
    from solvers.sources.source import Source
    from traces import ModelLayout

__all__ = ["Inputs", "plan_path", "read_inputs", "settle_time"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a search is given.

    Attributes
    ----------
    reading : TraceReading
    model : ModelLayout or None
    source : Source or None
        None with a service.
    request : Request or None
        None with a service, which checks it.
    body : dict
        With a service: what was asked, as its requests say it, but the trace.
    """

    reading: TraceReading
    model: ModelLayout | None
    source: Source | None
    request: Request | None
    body: dict[str, Any]


def read_inputs(
    checks: Checks, asked: Asked, reading: TraceReading, trace: Path, *, plan_format: str | None, server: str | None
) -> Inputs:
    """Read the files that the options name, and build the request; every violation is collected.

    Parameters
    ----------
    checks : Checks
    asked : Asked
        Of `solvers.Request`, or of a class of it.
    reading : TraceReading
    trace : Path
    plan_format : str or None
        Of the plan to start from.
    server : str or None
    """
    model = checks.run(reading.layout)
    machine: Any = checks.run(lambda: _topology(asked, server))
    start = asked.get("start")
    if server is not None:
        remote = None if start is None else named_plan(start, "--start")
        body = {} if machine is None else _body(asked, machine, remote)
        return Inputs(reading=reading, model=model, source=None, request=None, body=body)
    first: Any = None
    if start is None and plan_format is not None:
        checks.run(_format_of_nothing)
    if start is not None:
        known: dict[str, Any] = {"topology": machine, "model": model}
        known |= {"num_experts": reading.num_experts, "layer_ids": reading.named_layers()}
        first = checks.run(lambda: read_placement(Path(start), plan_format, **known))
    source: Any = checks.run(lambda: open_planned(trace, reading, model))
    apart: dict[str, Any] = {"topology": "1x1"}  # reported already
    if machine is not None:
        apart["topology"] = machine if asked.get("topology") is not None else None  # it follows from the machine
    if start is not None:
        if first is None:
            asked.parts(checks)
            return Inputs(reading=reading, model=model, source=source, request=None, body={})
        apart["start"] = first
    request = asked.build(checks, **apart)
    return Inputs(reading=reading, model=model, source=source, request=request, body={})


def settle_time(asked: Asked, reading: Asked) -> None:
    """Take what time needs from how the trace is read: its model, and its phase where only one is read.

    Raises
    ------
    InputError
        If one phase is read and another timed.
    typer.BadParameter
        If neither a topology nor a machine is given.
    """
    from traces import InputError

    phase, timed = reading.get("phase"), asked.get("time", "timed_phase")
    if asked.get("time", "machine") is None:
        if asked.get("topology") is None:
            raise typer.BadParameter("Give one, or --machine and --model.", param_hint="--topology")
        return
    if reading.get("model") is not None:
        asked.said["time", "model"] = reading.get("model")
    if phase is not None and timed is not None and phase != timed:
        detail = f"Only tokens of {phase} are read, and passes of {timed} are timed."
        raise InputError.of("phases_differ", "/time/timed_phase", detail, "Give one of the two.")
    if phase is not None:
        asked.said["time", "timed_phase"] = phase


def _topology(asked: Asked, server: str | None) -> Topology:
    """Return the topology that is named, or that of the machine, whose nodes tell how to read a plan."""
    named = asked.get("topology")
    if named is not None:
        return machine_of(named, server)
    from placement.time import Machine

    return Machine.parse(asked.get("time", "machine")).topology()


def _format_of_nothing() -> None:
    from traces import InputError

    detail = "It is the format of the plan to start from, and there is none: it has no effect."
    raise InputError.of("without_effect", "/plan_format", detail, "Give the plan as start, or leave the format out.")


def _body(asked: Asked, machine: Any, start: str | None) -> dict[str, Any]:
    """Return what was asked, and nothing else, as a service takes it."""
    from placement.topology.file import topology_to_dict

    body: dict[str, Any] = (
        asked.plain()
        | ({} if asked.get("topology") is None else {"topology": topology_to_dict(machine)})
        | ({} if start is None else {"start": start})
    )
    return body


def plan_path(trace: Path, output: Path | None) -> Path:
    """Return where the plan goes: as said, else beside nothing, in the working directory, by the trace's name."""
    if output is not None:
        return output
    name = re.sub(r"^(sha256):([0-9a-f]{12})[0-9a-f]*$", r"trace-\2.x", trace.name)
    return Path(f"{Path(name).stem or 'trace'}.plan.json")

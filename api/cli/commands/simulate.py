"""``moe-placement simulate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.options import output_option
from api.cli.progress import progress
from api.cli.reading import TraceReading
from api.cli.remote.service import ServerOption, is_plan, machine_of, refuse_options
from solvers.policies.request import PolicyRequest

if TYPE_CHECKING:
    from api.cli.progress import Progress
    from placement import Plan
    from traces import ModelLayout

__all__ = ["simulate"]

Read = TypeVar("Read")

TracesArgument = Annotated[
    list[Path], typer.Argument(metavar="TRACE...", help="Dumps of counts or files of tokens in time, or one trace.")
]


@asks(
    TraceReading, "reading", without=("model", "phase", "model_layers", "first_moe_layer", "moe_layers", "mtp_layers")
)
@asks(PolicyRequest)
def simulate(
    traces: TracesArgument,
    asked: Asked,
    reading: Asked,
    plan_format: shared.PlanFormatOption = None,
    output: Annotated[
        Path | None, output_option("--output", "-o", metavar="FILE", text="Plan to run next, by gain, to write (JSON).")
    ] = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Say when to re-plan: policies run over windows in time, with what moves and stalls take.

    Each window is judged on its own tokens or counts; but for the oracle, plans know the windows before it only.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.cli.placements import read_placement
    from api.report.policies import policies_text
    from placement.time import Machine
    from traces.model.presets import load_model

    running = asked.get("plan")
    known_there = server is not None and running is not None and is_plan(running)
    if known_there:
        refuse_options({"--plan-format": plan_format})
    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: check_outputs({"--output": output}, (*traces, running)))
        checks.run(lambda: _refuse(running, plan_format))
        apart: dict[str, Any] = {}
        known: Any = None
        if asked.get("machine") is not None:
            machine: Any = checks.run(lambda: Machine.parse(asked.get("machine")))
            known = machine and machine.topology()
        if asked.get("topology") is not None:
            place = checks.run(lambda: machine_of(asked.get("topology"), server))
            apart["topology"] = place or "1x1"  # reported already
            known = apart["topology"]
        model: Any = None
        if asked.get("model") is not None:
            model = checks.run(lambda: load_model(asked.get("model")))
        layout = None if model is None else model.layout
        if running is not None and known is not None and not known_there:
            sizes: dict[str, Any] = {"topology": known, "model": layout}
            sizes |= {"num_experts": read and read.num_experts, "layer_ids": read and read.named_layers()}
            apart["plan"] = checks.run(lambda: read_placement(Path(running), plan_format, **sizes))
        if known_there:
            asked.said.pop(("plan",))
        request = asked.build(checks, **apart)
    with progress() as shown:
        if server is None:
            document, plan = _here(traces, read, layout, request, shown)
        else:
            from api.cli.remote.jobs import sent_plan
            from api.cli.remote.simulation import simulate_remotely
            from placement.topology.file import topology_to_dict

            body = asked.plain()
            if running is not None:
                body["plan"] = sent_plan(running if known_there else apart["plan"])
            if "topology" in apart:
                body["topology"] = topology_to_dict(apart["topology"])
            reading_there = _as_they_are(traces, layout, lambda model: _reading(traces, read, model))
            document, plan = simulate_remotely(server, traces, reading_there, body, shown=shown)
        if output is not None:
            plan.save(output)
    if output is not None:
        say(f"Plan written to {output}", "note")
    if as_json:
        print_json(document)
        return
    write(policies_text(document))


def _here(
    paths: list[Path], read: TraceReading, layout: ModelLayout | None, request: PolicyRequest, shown: Progress
) -> tuple[dict[str, Any], Plan]:
    """Simulate in this process; return the document, and the plan to run next."""
    from solvers import simulate as simulate_series
    from traces import Series

    shown.phase("reading the series")
    source: Any = paths[0] if len(paths) == 1 else paths
    cut: dict[str, Any] = {"windows": request.windows, "by": request.by}
    series = _as_they_are(paths, layout, lambda model: Series.of(source, **cut, **read.load_options(model)))
    done = simulate_series(series, request=request.of_series(), tell=shown.phase)
    return done.as_dict(), done.plan


def _reading(paths: list[Path], read: TraceReading, layout: ModelLayout | None) -> dict[str, Any]:
    """Return how to read the windows, by the first of them, as a service takes it."""
    from api.cli.remote.simulation import is_series
    from api.cli.remote.trace import reading_of

    return reading_of(paths[0], read, None if is_series(paths[0]) else layout)


def _as_they_are(paths: list[Path], layout: ModelLayout | None, read: Callable[[ModelLayout | None], Read]) -> Read:
    """Read; where windows number their layers otherwise than the model, as made-up traces do, tell and go on."""
    from traces import InputError

    try:
        return read(layout)
    except InputError as error:
        if layout is None or {each.code for each in error.violations} != {"layer_ids_differ"}:
            raise
    say(f"{paths[0].name} numbers its layers otherwise than the model; they are taken as they are.", "note")
    return read(None)


def _refuse(running: str | None, plan_format: str | None) -> None:
    from traces import InputError

    if plan_format is not None and running is None:
        detail = "It is the format of the plan that runs, and none is given."
        raise InputError.of("without_effect", "/plan_format", detail, "Give --plan, or leave --plan-format out.")

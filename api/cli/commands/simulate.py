"""``moe-placement simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.options import output_option
from api.cli.progress import progress
from api.cli.reading import TraceReading
from solvers.policies.request import PolicyRequest

if TYPE_CHECKING:
    from traces import ModelLayout, Series

__all__ = ["simulate"]

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
    as_json: Json = False,
) -> None:
    """Say when to re-plan: policies run over windows in time, with what moves and stalls take.

    Each window is judged on its own tokens or counts; but for the oracle, plans know the windows before it only.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.cli.placements import read_placement
    from api.cli.reading import read_topology
    from api.report.policies import policies_text
    from placement.time import Machine
    from solvers import simulate as simulate_series
    from traces.model.presets import load_model

    running = asked.get("plan")
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
            apart["topology"] = checks.run(lambda: read_topology(asked.get("topology"))) or "1x1"  # reported already
            known = apart["topology"]
        model: Any = None
        if asked.get("model") is not None:
            model = checks.run(lambda: load_model(asked.get("model")))
        layout = None if model is None else model.layout
        if running is not None and known is not None:
            sizes: dict[str, Any] = {"topology": known, "model": layout}
            sizes |= {"num_experts": read and read.num_experts, "layer_ids": read and read.named_layers()}
            apart["plan"] = checks.run(lambda: read_placement(Path(running), plan_format, **sizes))
        request = asked.build(checks, **apart)
    with progress() as shown:
        shown.phase("reading the series")
        series = _series(traces, read, layout, request)
        done = simulate_series(series, request=request.of_series(), tell=shown.phase)
        if output is not None:
            done.plan.save(output)
    if output is not None:
        say(f"Plan written to {output}", "note")
    if as_json:
        print_json(done.as_dict())
        return
    write(policies_text(done))


def _series(paths: list[Path], read: TraceReading, layout: ModelLayout | None, request: PolicyRequest) -> Series:
    """Open the series; where it numbers its layers otherwise than the model, as made-up traces do, tell and go on."""
    from traces import InputError, Series

    source: Any = paths[0] if len(paths) == 1 else paths
    cut: dict[str, Any] = {"windows": request.windows, "by": request.by}
    try:
        return Series.of(source, **cut, **read.load_options(layout))
    except InputError as error:
        if layout is None or {each.code for each in error.violations} != {"layer_ids_differ"}:
            raise
    say(f"{paths[0].name} numbers its layers otherwise than the model; they are taken as they are.", "note")
    return Series.of(source, **cut, **read.load_options(None))


def _refuse(running: str | None, plan_format: str | None) -> None:
    from traces import InputError

    if plan_format is not None and running is None:
        detail = "It is the format of the plan that runs, and none is given."
        raise InputError.of("without_effect", "/plan_format", detail, "Give --plan, or leave --plan-format out.")

"""``moe-placement advise``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.options import output_option
from api.cli.progress import progress
from api.cli.reading import TraceReading, open_planned
from solvers.advising.request import AdviceRequest

if TYPE_CHECKING:
    from solvers import Advice
    from solvers.sources.source import Source
    from traces import ModelLayout

__all__ = ["advise", "open_of_model"]


@asks(
    TraceReading, "reading", without=("model", "phase", "model_layers", "first_moe_layer", "moe_layers", "mtp_layers")
)
@asks(AdviceRequest)
def advise(
    trace: shared.TraceArgument,
    asked: Asked,
    reading: Asked,
    plan_format: shared.PlanFormatOption = None,
    workers: shared.WorkersOption = None,
    output: Annotated[
        Path | None, output_option("--output", "-o", metavar="FILE", text="Plan that was found, to write (JSON).")
    ] = None,
    report: Annotated[Path | None, output_option(metavar="FILE", text="HTML report to write.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether a change of placement is worth it in milliseconds, and what else could be done.

    The plan is found on one part of the trace, and judged on the other against the plan that runs.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.cli.placements import read_placement
    from api.report.advice import advice_text, both_text
    from placement.time import Machine
    from solvers import advise as advise_one
    from solvers import advise_both
    from traces.model.presets import load_model

    running = asked.get("plan")
    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: check_outputs({"--output": output, "--report": report}, (trace, running)))
        checks.run(lambda: _refuse(output, asked, plan_format))
        machine: Any = checks.run(lambda: Machine.parse(asked.get("machine")))
        model: Any = checks.run(lambda: load_model(asked.get("model")))
        layout = None if model is None else model.layout
        plan: Any = None
        if running is not None and machine is not None:
            known: dict[str, Any] = {"topology": machine.topology(), "model": layout}
            known |= {"num_experts": read and read.num_experts, "layer_ids": read and read.named_layers()}
            plan = checks.run(lambda: read_placement(Path(running), plan_format, **known))
        source: Any = None if read is None else checks.run(lambda: open_of_model(trace, read, layout))
        request = asked.build(checks, plan=plan)
    with progress() as shown:
        if request.phase == "both":
            both = advise_both(source, request=request, workers=workers, tell=shown.phase)
            document, text = both.as_dict(), both_text(both)
            advices = list(both.phases.values())
        else:
            advice: Advice = advise_one(source, request=request, workers=workers, tell=shown.phase)
            document, text = advice.as_dict(), advice_text(advice)
            advices = [advice]
            if output is not None:
                advice.plan.save(output)
    if report is not None:
        from api.report.timing import write_advice

        write_advice(report, advices)
        say(f"Report written to {report}", "note")
    if output is not None:
        say(f"Plan written to {output}", "note")
    if as_json:
        print_json(document)
        return
    write(text)


def open_of_model(trace: Path, read: TraceReading, layout: ModelLayout | None) -> Source:
    """Open the trace; where it numbers its layers otherwise than the model, as made-up traces do, tell and go on."""
    from traces import InputError

    try:
        return open_planned(trace, read, layout)
    except InputError as error:
        if layout is None or {each.code for each in error.violations} != {"layer_ids_differ"}:
            raise
    say(f"{trace.name} numbers its layers otherwise than the model; they are taken as they are.", "note")
    return open_planned(trace, read, None)


def _refuse(output: Path | None, asked: Asked, plan_format: str | None) -> None:
    from traces import Violations

    found = Violations()
    if output is not None and asked.get("phase") == "both":
        detail = "Two plans are found, one per phase."
        found.add("without_effect", "/output", detail, "Ask for one phase, or leave --output out.")
    if plan_format is not None and asked.get("plan") is None:
        detail = "It is the format of the plan that runs, and none is given."
        found.add("without_effect", "/plan_format", detail, "Give --plan, or leave --plan-format out.")
    found.raise_if_any()

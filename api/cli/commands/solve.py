"""``moe-placement solve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from api.cli import options as shared
from api.cli.console import Json
from api.cli.declared import Asked, asks
from api.cli.options import output_option
from api.cli.reading import TraceReading, read_executor
from api.cli.remote.service import ServerOption, refuse_options
from solvers.requests.request import Request

__all__ = ["solve"]


@asks(TraceReading, "reading")
@asks(Request, without=("model",))
def solve(
    trace: shared.TraceArgument,
    asked: Asked,
    reading: Asked,
    plan_format: shared.PlanFormatOption = None,
    executor: shared.ExecutorOption = None,
    workers: shared.WorkersOption = None,
    output: Annotated[
        Path | None,
        output_option(
            "--output", "-o", metavar="FILE", text="Plan file to write (JSON).  [default: TRACE.plan.json, here]"
        ),
    ] = None,
    report: Annotated[Path | None, output_option(metavar="FILE", text="HTML report to write.")] = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Find a plan for a trace, and compare it with no planning on tokens fitted and held out.

    With an engine, the file that it loads is written beside the plan. With a machine and a model, milliseconds per
    forward pass are minimised, in place of hop costs.
    """
    if server is not None:
        refuse_options({"--report": report, "--workers": workers, "--executor": executor, "--plan-format": plan_format})

    from api.cli.inputs import plan_path, read_inputs, settle_time
    from api.cli.outputs import Checks, check_outputs
    from api.cli.planned import plan_and_tell

    output = plan_path(trace, output)
    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: settle_time(asked, reading))
        own = (trace, asked.get("start"), reading.get("model"))
        checks.run(lambda: check_outputs({"--output": output, "--report": report}, own))
        if read is not None:
            given = read_inputs(checks, asked, read, trace, plan_format=plan_format, server=server)
    if server is not None:
        from api.cli.remote.plan import plan_remotely

        loading = read.load_options(given.model)
        plan_remotely(
            server, trace, loading, given.body, output=output, as_json=as_json, model=given.model, config=read.model
        )
        return
    assert given.request is not None and given.source is not None  # noqa: PT018  # the checks have raised otherwise
    plan_and_tell(
        given.source,
        given.request,
        output=output,
        report=report,
        workers=workers,
        as_json=as_json,
        executor=read_executor(given.request.seeds, executor),
        model=given.model,
        config=read.model,
        inputs=own,
    )

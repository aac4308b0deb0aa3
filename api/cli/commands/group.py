"""``moe-placement group``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.options import output_option
from api.cli.progress import progress
from api.cli.reading import TraceReading, read_topology
from solvers.grouping.request import GroupRequest

__all__ = ["group"]


@asks(
    TraceReading, "reading", without=("model", "phase", "model_layers", "first_moe_layer", "moe_layers", "mtp_layers")
)
@asks(GroupRequest)
def group(
    trace: shared.TraceArgument,
    asked: Asked,
    reading: Asked,
    output: Annotated[
        Path | None, output_option("--output", "-o", metavar="FILE", text="Plan to write (JSON).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send requests to GPUs by what they use, and place experts with them, so that tokens travel little.

    The bound says what no grouping and no plan can beat together; held-out requests judge, beside simpler ways.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.report.group import group_text
    from solvers import group_requests
    from traces import load
    from traces.model.presets import layout_of

    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: check_outputs({"--output": output}, (trace,)))
        apart: dict[str, Any] = {}
        if (text := asked.get("topology")) is not None:
            apart["topology"] = checks.run(lambda: read_topology(text)) or "1x1"  # reported already
        request: Any = asked.build(checks, **apart)
        model: Any = None if asked.get("model") is None else checks.run(lambda: layout_of(asked.get("model")))
        source: Any = None if read is None else checks.run(lambda: load(trace, **read.load_options(model)))
    with progress() as shown:
        found = group_requests(source, request=request, tell=shown.phase)
    if output is not None:
        found.plan.save(output)
        say(f"Plan written to {output}", "note")
    if as_json:
        print_json(found.as_dict())
        return
    write(group_text(found))

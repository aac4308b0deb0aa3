"""``moe-placement export``: placement files for engines."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from api.cli import options as shared
from api.cli.console import Json
from api.cli.declared import Asked, asks
from api.cli.knobs import WHAT
from api.cli.options import output_option
from api.cli.reading import TraceReading
from api.cli.remote.service import ServerOption, fetch_plan, named_plan, refuse_options, service_at
from api.cli.writing import LAYOUT_OPTIONS, Force, PlacementWriting, form_of, write_placement

__all__ = ["export"]


@asks(TraceReading, "reading", only=LAYOUT_OPTIONS)
@asks(PlacementWriting, "writing")
def export(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="Plan, or placement file of an engine; with --server plan_...")
    ],
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME", rich_help_panel=WHAT, help="Engine, or format to write (see `formats`): sglang, trtllm, ..."
        ),
    ],
    reading: Asked,
    writing: Asked,
    output: Annotated[Path, output_option("--output", "-o", metavar="FILE", text="File to write.")],
    plan_format: shared.PlanFormatOption = None,
    force: Force = False,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Write a plan as the file that an engine loads; refuse what the engine would reject or misread."""
    from api.cli.outputs import Checks, check_outputs

    if server is not None:
        named_plan(plan, "PLAN")
        refuse_options({"--plan-format": plan_format})
    with Checks() as checks:
        read = reading.build(checks)
        wanted = writing.build(checks)
        checks.run(lambda: check_outputs({"--output": output}, (plan, reading.get("model"))))
    context = wanted.context(read)
    form, target = form_of(engine, "/engine")
    with TemporaryDirectory() as folder:
        if server is not None:
            with service_at(server) as service:
                plan = fetch_plan(service, str(plan), Path(folder))
        write_placement(plan, plan_format, context, form, target, output, force=force, as_json=as_json)

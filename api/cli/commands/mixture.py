"""``moe-placement mixture``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.options import output_option
from api.cli.progress import progress
from api.cli.reading import TraceReading, read_topology
from solvers.mixtures.request import MixtureRequest

if TYPE_CHECKING:
    from solvers.mixtures.domains import Domains

__all__ = ["mixture"]


@asks(
    TraceReading, "reading", without=("model", "phase", "model_layers", "first_moe_layer", "moe_layers", "mtp_layers")
)
@asks(MixtureRequest)
def mixture(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE...", help="A trace per domain, or one with the column data_source.")
    ],
    asked: Asked,
    reading: Asked,
    workers: shared.WorkersOption = None,
    output: Annotated[
        Path | None, output_option("--output", "-o", metavar="FILE", text="Plan to write (JSON).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find one plan for several kinds of traffic: for the worst of them, their mean, or a quantile.

    It is judged on held-out tokens of every domain, beside plans for one domain and for all tokens together.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.report.mixture import mixture_text
    from solvers import mixture as find

    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: check_outputs({"--output": output}, tuple(traces)))
        topology: Any = checks.run(lambda: read_topology(asked.get("topology")))
        request: Any = None if topology is None else asked.build(checks, topology=topology)
        source: Any = None if read is None else checks.run(lambda: _open(traces, read, asked.get("model")))
    with progress() as shown:
        found = find(source, request=request, workers=workers, tell=shown.phase)
    if output is not None:
        found.plan.save(output)
        say(f"Plan written to {output}", "note")
    if as_json:
        print_json(found.as_dict())
        return
    write(mixture_text(found))


def _open(paths: list[Path], read: TraceReading, model: str | None) -> Domains:
    """Open one trace, or several by name."""
    from solvers.mixtures.domains import domain_names
    from traces import load
    from traces.model.presets import layout_of

    options = read.load_options(None if model is None else layout_of(model))
    # Counts are refused by the library.
    if len(paths) == 1:
        return cast("Domains", load(paths[0], **options))
    return cast("Domains", {name: load(path, **options) for name, path in zip(domain_names(paths), paths, strict=True)})

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
from api.cli.reading import TraceReading
from api.cli.remote.service import ServerOption, machine_of, refuse_options
from solvers.mixtures.request import MixtureRequest

if TYPE_CHECKING:
    from api.cli.progress import Progress
    from placement import Plan
    from solvers.mixtures.domains import Domains
    from traces import ModelLayout

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
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Find one plan for several kinds of traffic: for the worst of them, their mean, or a quantile.

    It is judged on held-out tokens of every domain, beside plans for one domain and for all tokens together.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.report.mixture import mixture_text
    from traces.model.presets import layout_of

    if server is not None:
        refuse_options({"--workers": workers})
    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: check_outputs({"--output": output}, tuple(traces)))
        topology: Any = checks.run(lambda: machine_of(asked.get("topology"), server))
        request: Any = None if topology is None else asked.build(checks, topology=topology)
        model: Any = None if asked.get("model") is None else checks.run(lambda: layout_of(asked.get("model")))
        if read is not None:
            given: Any = checks.run(lambda: _given(traces, read, model, server))
    with progress() as shown:
        if server is None:
            document, plan = _here(given, request, workers, shown)
        else:
            from api.cli.remote.mixture import mixture_remotely
            from placement.topology.file import topology_to_dict

            body = asked.plain() | {"topology": topology_to_dict(topology)}
            document, plan = mixture_remotely(server, traces, given, body, shown=shown)
        if output is not None:
            plan.save(output)
    if output is not None:
        say(f"Plan written to {output}", "note")
    if as_json:
        print_json(document)
        return
    write(mixture_text(document))


def _here(
    source: Domains, request: MixtureRequest, workers: int | None, shown: Progress
) -> tuple[dict[str, Any], Plan]:
    from solvers import mixture as find

    found = find(source, request=request, workers=workers, tell=shown.phase)
    return found.as_dict(), found.plan


def _given(paths: list[Path], read: TraceReading, model: ModelLayout | None, server: str | None) -> Any:
    """Return one trace, or several by name; with a service, how each is to be read."""
    from solvers.mixtures.domains import domain_names
    from traces import load

    if server is not None:
        from api.cli.remote.trace import reading_of

        return [reading_of(path, read, model) for path in paths]
    options = read.load_options(model)
    # Counts are refused by the library.
    if len(paths) == 1:
        return cast("Domains", load(paths[0], **options))
    return cast("Domains", {name: load(path, **options) for name, path in zip(domain_names(paths), paths, strict=True)})

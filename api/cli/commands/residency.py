"""``moe-placement residency``."""

from __future__ import annotations

from typing import Any

from api.cli import options as shared
from api.cli.commands.advise import open_of_model
from api.cli.console import Json, print_json, write
from api.cli.declared import Asked, asks
from api.cli.progress import progress
from api.cli.reading import TraceReading
from solvers.residency.request import ResidencyRequest

__all__ = ["residency"]


@asks(
    TraceReading, "reading", without=("model", "phase", "model_layers", "first_moe_layer", "moe_layers", "mtp_layers")
)
@asks(ResidencyRequest)
def residency(trace: shared.TraceArgument, asked: Asked, reading: Asked, as_json: Json = False) -> None:
    """Say which experts should stay in a GPU's memory where not all fit, and what the others cost.

    Policies are fitted on one part of the trace, and run on the other, beside the optimum that knows the future.
    """
    from api.cli.outputs import Checks
    from api.report.residency import residency_text
    from solvers import simulate_residency
    from traces.model.presets import load_model

    with Checks() as checks:
        read = reading.build(checks)
        name = asked.get("model")
        model: Any = None if name is None else checks.run(lambda: load_model(name))
        layout = None if model is None else model.layout
        source: Any = None if read is None else checks.run(lambda: open_of_model(trace, read, layout))
        request = asked.build(checks)
    with progress() as shown:
        found = simulate_residency(source, request=request, tell=shown.phase)
    if as_json:
        print_json(found.as_dict())
        return
    write(residency_text(found))

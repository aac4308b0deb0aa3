"""Options that several commands share, and that no declaration of the library has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from api.cli.console import say
from api.cli.knobs import LIMITS, OUTPUT, WHAT
from api.cli.texts import choice

__all__ = [
    "ExecutorOption",
    "PartOption",
    "PlanFormatOption",
    "TraceArgument",
    "WorkersOption",
    "choice",
    "output_option",
]

WORKERS_PER_CORE = 4


def _limit_workers(workers: int | None) -> int | None:
    """Return at most a few threads per core: more of them only cost memory, and results do not depend on them."""
    most = WORKERS_PER_CORE * len(os.sched_getaffinity(0))
    if workers is None or workers <= most:
        return workers
    say(f"--workers {workers} is more than {WORKERS_PER_CORE} per core; {most} are used.", "note")
    return most


def output_option(*names: str, metavar: str, text: str) -> typer.models.OptionInfo:
    """Return an option that says where something is written."""
    option: typer.models.OptionInfo = typer.Option(
        *names, metavar=metavar, help=text, rich_help_panel=OUTPUT, show_default=False
    )
    return option


TraceArgument = Annotated[Path, typer.Argument(metavar="TRACE", help="Trace, saved profile or load matrix.")]
PlanFormatOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=WHAT,
        help="Format of the placement file (see `formats`); found by content by default.",
    ),
]
PartOption = Annotated[
    str,
    typer.Option(
        parser=choice("fit", "held_out", "all"),
        metavar="fit|held-out|all",
        rich_help_panel=WHAT,
        help="Part of the trace, split as `solve` does.",
    ),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        rich_help_panel=LIMITS,
        help="Who searches with several seeds, or the layers of one under a work limit: processes (one per core), or "
        "the cluster at dask://HOST:PORT.  [default: processes]",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        callback=_limit_workers,
        rich_help_panel=LIMITS,
        help="Threads, at most 4 per core.  [default: all cores]",
        show_default=False,
    ),
]

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
    "BeyondOption",
    "DropDummyOption",
    "ExecutorOption",
    "FirstMoeLayerOption",
    "FormatOption",
    "LayerBaseOption",
    "LayerIdsOption",
    "LayersOption",
    "ModelConfigOption",
    "ModelLayersOption",
    "MoeLayersOption",
    "MtpLayersOption",
    "NumExpertsOption",
    "PartOption",
    "PhaseOption",
    "PlanFormatOption",
    "TopKOption",
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
        help="Who searches with several seeds: processes (one per core), or the cluster at dask://HOST:PORT.  "
        "[default: processes]",
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
TopKOption = Annotated[
    int | None, typer.Option(metavar="K", min=1, help="Experts per token, where the file does not say it.")
]
DropDummyOption = Annotated[
    bool,
    typer.Option("--drop-dummy", help="Leave out rows of warm-up: repeats of the row before, and rows of a single id."),
]
BeyondOption = Annotated[
    str | None,
    typer.Option(
        "--ids-beyond-experts",
        parser=choice("refuse", "none"),
        metavar="refuse|none",
        help="Ids of --num-experts and above, as of fused shared or zero-computation experts: none takes them as no "
        "routed expert; refused by default.",
    ),
]
LayerBaseOption = Annotated[
    int | None,
    typer.Option(
        metavar="0|1", min=0, max=1, help="What layers of a Megatron trace are counted from, where it does not tell."
    ),
]
PhaseOption = Annotated[
    str | None,
    typer.Option(
        parser=choice("prefill", "decode"),
        metavar="prefill|decode",
        help="Only the tokens of one phase, of traces that have phases.",
    ),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        metavar="LAYERS",
        help="Only these model layers: 3,4 or 0-3; --num-experts is theirs. For models whose layers differ in experts.",
    ),
]
NumExpertsOption = Annotated[
    int | None, typer.Option(metavar="E", help="Experts per layer, where the file does not say it.")
]
LayerIdsOption = Annotated[
    str | None,
    typer.Option(metavar="IDS", help="Model layers, where the file does not say them: 1,2,5 or 1-26."),
]
FormatOption = Annotated[
    str | None, typer.Option("--format", metavar="NAME", help="Trace format; found by content by default.")
]
ModelConfigOption = Annotated[
    Path | None,
    typer.Option("--model", metavar="MODEL", help="The model's config.json, or a name such as deepseek-v3."),
]
ModelLayersOption = Annotated[
    int | None, typer.Option(metavar="N", help="Layers of the model, dense ones included; without a config.json.")
]
FirstMoeLayerOption = Annotated[
    int | None, typer.Option(metavar="N", help="First layer with experts, counted from 0; with --model-layers.")
]
MoeLayersOption = Annotated[
    str | None,
    typer.Option(
        metavar="IDS", help="Layers with experts, where others lie between them: 1,3,5-47; with --model-layers."
    ),
]
MtpLayersOption = Annotated[
    int | None, typer.Option(metavar="N", help="Layers for multi-token prediction; with --model-layers.")
]

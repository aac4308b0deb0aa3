"""``moe-placement renumber``: a plan applied to a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.knobs import OUTPUT
from api.cli.options import output_option

__all__ = ["renumber"]


def renumber(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="Plan without redundant experts, or placement file of an engine.")
    ],
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Folder of the model: config.json and safetensors files.")
    ],
    output: Annotated[
        Path, output_option("--output", "-o", metavar="FOLDER", text="Folder to write; it must not exist.")
    ],
    prove: Annotated[
        bool,
        typer.Option(
            "--prove",
            rich_help_panel=OUTPUT,
            help="Run the model before and after, on the CPU in float32, and refuse if its logits differ; needs torch"
            " and transformers.",
        ),
    ] = False,
    plan_format: shared.PlanFormatOption = None,
    as_json: Json = False,
) -> None:
    """Give the experts of a checkpoint the numbers of their slots in a plan: for Megatron, DeepSpeed and transformers.

    Router, selection biases, experts and their scales move together, so the model computes the same. What nothing is
    known of is refused.
    """
    from placement import renumber as write_renumbered

    done = write_renumbered(plan, checkpoint, output, prove=prove, format=plan_format)
    for note in done.notes:
        say(note, "note")
    if as_json:
        print_json(asdict(done) | {"folder": str(done.folder), "notes": list(done.notes)})
        return
    proof = (
        "" if done.difference is None else f" Logits differ by {done.difference:.1e} of the largest: it is the same."
    )
    write(
        f"{done.folder} written: {done.layers} layers of {done.num_experts} experts in the plan's order "
        f"({done.renamed} tensors renamed, {done.moved} reordered).{proof}"
    )

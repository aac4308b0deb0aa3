"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.console import say

__all__ = [
    "ActivatedWeightOption",
    "DecodeBatchOption",
    "DedupOption",
    "DropDummyOption",
    "ExecutionOption",
    "ExecutorOption",
    "FirstMoeLayerOption",
    "FormatOption",
    "HoldOutOption",
    "LayerIdsOption",
    "LoadCapOption",
    "LoadGroupsOption",
    "LoadQuantileOption",
    "ModelConfigOption",
    "ModelLayersOption",
    "MtpLayersOption",
    "NumExpertsOption",
    "OwnershipOption",
    "PlanFormatOption",
    "PlansDecodeBatchOption",
    "PlansDedupOption",
    "PlansExecutionOption",
    "PlansOwnershipOption",
    "PlansReplicaPolicyOption",
    "ReplicaPolicyOption",
    "SeedsOption",
    "TopKOption",
    "TopologyOption",
    "WorkersOption",
    "choice",
]

WORKERS_PER_CORE = 4


def choice(*allowed: str) -> Callable[[str], str]:
    """Return a parser that takes one of `allowed`, with hyphens or underscores."""

    def parse(text: str) -> str:
        value = text.strip().lower().replace("-", "_")
        if value not in allowed:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(name.replace('_', '-') for name in allowed)}.")
        return value

    return parse


def _limit_workers(workers: int | None) -> int | None:
    """Return at most a few threads per core: more of them only cost memory, and results do not depend on them."""
    most = WORKERS_PER_CORE * len(os.sched_getaffinity(0))
    if workers is None or workers <= most:
        return workers
    say(f"--workers {workers} is more than {WORKERS_PER_CORE} per core; {most} are used.", "note")
    return most


def _words(allowed: Sequence[str], text: str, default: str = "") -> Any:
    """Return an option that takes one of `allowed`; `default` says in words what its absence means."""
    names = "|".join(name.replace("_", "-") for name in allowed)
    shown = f"{text}  [default: {default}]" if default else text
    return typer.Option(parser=choice(*allowed), metavar=names, help=shown, show_default=not default)


OF_THE_PLAN = "as the plan was made for, else {}"
EXECUTIONS = (
    ("context_coherent", "dispatch"),
    "How tokens travel: straight on to the next layer's experts (ExFlow), or home after every layer "
    "(vLLM, SGLang, TensorRT-LLM, Megatron).",
)
DEDUPS = (("none", "gpu", "node"), "Messages under dispatch: one per expert, per GPU, or per remote node.")
OWNERSHIPS = (
    ("token", "sequence", "measured"),
    "Home of a token under dispatch: hashed per token or per sequence, or the trace's source_rank.",
)
COPY_POLICIES = (
    ("fair", "same_gpu", "same_node"),
    "Replica that a token uses: an equal split, or the nearest one.",
)
USUAL_COPY_POLICY = "fair; under dispatch same-node"

ExecutionOption = Annotated[str, _words(*EXECUTIONS)]
DedupOption = Annotated[str, _words(*DEDUPS)]
OwnershipOption = Annotated[str, _words(*OWNERSHIPS)]
ReplicaPolicyOption = Annotated[str | None, _words(*COPY_POLICIES, USUAL_COPY_POLICY)]
# For a plan that is there already; None is what its provenance says.
PlansExecutionOption = Annotated[str | None, _words(*EXECUTIONS, OF_THE_PLAN.format("context-coherent"))]
PlansDedupOption = Annotated[str | None, _words(*DEDUPS, OF_THE_PLAN.format("gpu"))]
PlansOwnershipOption = Annotated[str | None, _words(*OWNERSHIPS, OF_THE_PLAN.format("token"))]
PlansReplicaPolicyOption = Annotated[
    str | None,
    _words(*COPY_POLICIES, f"as the plan was made for, if for this --execution, else {USUAL_COPY_POLICY}"),
]
TopologyOption = Annotated[
    str,
    typer.Option(
        metavar="NxG",
        help="4x8, 8+8+4, hgx_h100:4 (see `topologies`) or a topology file; with --server also topo_...",
    ),
]
ActivatedWeightOption = Annotated[
    float, typer.Option(metavar="W", help="Weight of the activated experts of the busiest GPU, for decoding.")
]
DecodeBatchOption = Annotated[
    int, typer.Option(metavar="TOKENS", help="Tokens per batch that activated experts are counted over.")
]
PlansDecodeBatchOption = Annotated[
    int | None,
    typer.Option(
        metavar="TOKENS",
        min=1,
        max=1_000_000,
        help="Count activated experts, under dispatch, over batches of so many tokens.  "
        "[default: as the plan was made for]",
        show_default=False,
    ),
]
LoadCapOption = Annotated[
    str, typer.Option(metavar="RATIO|none", help="Largest GPU load over the mean, in every layer: 1.05, say.")
]
LoadQuantileOption = Annotated[
    float | None,
    typer.Option(
        metavar="Q",
        help="Hold the load cap for this quantile of every GPU's load, not only for its expectation: 0.95, say.",
    ),
]
LoadGroupsOption = Annotated[
    str | None,
    _words(
        ("windows", "sequences"),
        "Tokens that come together, to tell how much loads vary: 512 in a row, or whole sequences (seq_id).",
        "sequences if there is a --load-quantile and the trace has seq_id, else windows",
    ),
]
HoldOutOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of the sequences to hold out; 0 fits on all.  [default: 0.5 if there are tokens]",
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
    typer.Option(metavar="FILE", help="The model's config.json: its MoE layers, experts and experts per token."),
]
ModelLayersOption = Annotated[
    int | None, typer.Option(metavar="N", help="Layers of the model, dense ones included; without a config.json.")
]
FirstMoeLayerOption = Annotated[
    int | None, typer.Option(metavar="N", help="First layer with experts, counted from 0; with --model-layers.")
]
MtpLayersOption = Annotated[
    int | None, typer.Option(metavar="N", help="Layers for multi-token prediction; with --model-layers.")
]
PlanFormatOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Format of the placement file (see `formats`); found by content by default."),
]
SeedsOption = Annotated[
    int,
    typer.Option(metavar="N", min=1, max=100_000, help="Search with this many seeds from --seed on; the best is kept."),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
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
        help="Threads, at most 4 per core.  [default: all cores]",
        show_default=False,
    ),
]

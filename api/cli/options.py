"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.console import say

if TYPE_CHECKING:
    from api.restarts import Restarts
    from placement import Plan, Topology
    from placement.constraints import Group, LayerCap, Pin
    from traces import ModelLayout

__all__ = [
    "CopyPolicyOption",
    "DedupOption",
    "DropDummyOption",
    "ExecutionOption",
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
    "PlansCopyPolicyOption",
    "PlansDedupOption",
    "PlansExecutionOption",
    "PlansOwnershipOption",
    "TopKOption",
    "WorkersOption",
    "choice",
    "load_options",
    "number_or_none",
    "read_groups",
    "read_layer_caps",
    "read_layer_ids",
    "read_model",
    "read_options",
    "read_pins",
    "read_placement",
    "read_topology",
    "row_options",
]

MAX_LAYERS = 100_000
WORKERS_PER_CORE = 4


def choice(*allowed: str) -> Callable[[str], str]:
    """Return a parser that takes one of `allowed`, with hyphens or underscores."""

    def parse(text: str) -> str:
        value = text.strip().lower().replace("-", "_")
        if value not in allowed:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(name.replace('_', '-') for name in allowed)}.")
        return value

    return parse


def number_or_none(text: str, option: str) -> float | None:
    """Read a number, or None from ``none``."""
    if text.strip().lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor 'none'.", param_hint=option) from None


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
    "Copy that a token uses: an equal split, or the nearest one.",
)
USUAL_COPY_POLICY = "fair; under dispatch same-node"

ExecutionOption = Annotated[str, _words(*EXECUTIONS)]
DedupOption = Annotated[str, _words(*DEDUPS)]
OwnershipOption = Annotated[str, _words(*OWNERSHIPS)]
CopyPolicyOption = Annotated[str | None, _words(*COPY_POLICIES, USUAL_COPY_POLICY)]
# For a plan that is there already; None is what its provenance says.
PlansExecutionOption = Annotated[str | None, _words(*EXECUTIONS, OF_THE_PLAN.format("context-coherent"))]
PlansDedupOption = Annotated[str | None, _words(*DEDUPS, OF_THE_PLAN.format("gpu"))]
PlansOwnershipOption = Annotated[str | None, _words(*OWNERSHIPS, OF_THE_PLAN.format("token"))]
PlansCopyPolicyOption = Annotated[
    str | None,
    _words(*COPY_POLICIES, f"as the plan was made for, if for this --execution, else {USUAL_COPY_POLICY}"),
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


def local_options(workers: int | None, executor: str | None, seeds: int, plan_format: str | None) -> dict[str, object]:
    """Return, by name, the options of a search that are for this process or its own files; None where not given."""
    given: dict[str, object] = {"--workers": workers, "--executor": executor, "--plan-format": plan_format}
    return given | {"--seeds": seeds if seeds > 1 else None}


def read_restarts(seeds: int, executor: str | None) -> Restarts | None:
    """Return how often to search and where; None for once, in this process."""
    if seeds == 1 and executor is None:
        return None
    from api.executors import LOCAL, executor_factory
    from api.restarts import Restarts

    return Restarts(seeds=seeds, executor=executor_factory(executor or LOCAL, "--executor"))


def load_options(
    num_experts: int | None, layer_ids: str | None, format_name: str | None, model: ModelLayout | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of `traces.load`."""
    options: dict[str, Any] = {
        "num_experts": num_experts,
        "layer_ids": read_layer_ids(layer_ids),
        "format": format_name,
    }
    return options if model is None else options | {"model": model}


def read_model(
    config: Path | None, model_layers: int | None, first_moe_layer: int | None = None, mtp_layers: int | None = None
) -> ModelLayout | None:
    """Return the model's layers, from its config or from numbers; None where nobody says anything."""
    if model_layers is None and (first_moe_layer is not None or mtp_layers is not None):
        option = "--mtp-layers" if first_moe_layer is None else "--first-moe-layer"
        raise typer.BadParameter("It needs --model-layers.", param_hint=option)
    if config is not None and model_layers is not None:
        raise typer.BadParameter("The config says it already.", param_hint="--model-layers")
    if config is not None:
        from traces.model_config import load_model_config

        return load_model_config(config)
    if model_layers is None:
        return None
    from traces import ModelLayout

    return ModelLayout.of(model_layers, first_moe_layer=first_moe_layer or 0, num_mtp_layers=mtp_layers or 0)


def read_placement(
    path: Path,
    format_name: str | None,
    *,
    topology: Topology | None = None,
    model: ModelLayout | None = None,
    num_experts: int | None = None,
    layer_ids: str | None = None,
) -> Plan:
    """Read a plan, or a placement file of an engine, and tell what was assumed."""
    from placement.exports import Context, load_placement

    layers = read_layer_ids(layer_ids)
    plan = load_placement(
        path,
        Context(
            model=model,
            layer_ids=None if layers is None else tuple(layers),
            num_experts=num_experts,
            gpus_per_node=None if topology is None else topology.gpus_per_node,
        ),
        format=format_name,
    )
    source = plan.provenance.get("placement")
    for note in source.get("notes", ()) if isinstance(source, dict) else ():
        say(f"{path.name}: {note}", "note")
    return plan


def row_options(top_k: int | None, drop_dummy: bool) -> dict[str, Any]:
    """Return further keyword arguments of `traces.load`, as far as they are given."""
    return {} | ({} if top_k is None else {"top_k": top_k}) | ({"drop_dummy_rows": True} if drop_dummy else {})


def read_layer_ids(text: str | None) -> list[int] | None:
    """Read ``1,2,5`` and ranges such as ``1-26``."""
    if text is None:
        return None
    ids: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            start, end = int(first), int(last if dash else first)
            if not 0 <= end - start < MAX_LAYERS:
                raise ValueError(text)
            ids += range(start, end + 1)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of layers such as 1,2,5 or 1-26.", param_hint="--layer-ids"
        ) from None
    return ids


def read_topology(text: str) -> Topology:
    """Read ``4x8``, ``8+8+4``, ``hgx_h100:4`` or a topology file."""
    from placement import load_topology

    return load_topology(text)


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value``; values are JSON where they can be, else text."""
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is not key=value.", param_hint="--option")
        if name in options:
            raise typer.BadParameter(f"{name} is given twice.", param_hint="--option")
        try:
            options[name] = json.loads(value)
        except RecursionError:
            raise typer.BadParameter(f"The value of {name} is nested too deeply.", param_hint="--option") from None
        except ValueError:
            options[name] = value
    return options


def read_pins(texts: Sequence[str], option: str) -> tuple[Pin, ...]:
    """Read ``expert@gpu`` or ``expert@gpu@layer``."""
    from placement import Pin

    pins = []
    for text in texts:
        try:
            expert, gpu, *layer = (int(part) for part in text.split("@"))
            if len(layer) > 1:
                raise ValueError(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not EXPERT@GPU or EXPERT@GPU@LAYER.", param_hint=option) from None
        pins.append(Pin(expert=expert, gpu=gpu, layer_id=layer[0] if layer else None))
    return tuple(pins)


def read_layer_caps(texts: Sequence[str]) -> tuple[LayerCap, ...]:
    """Read ``cap@layer``."""
    from placement import LayerCap

    caps = []
    for text in texts:
        cap, _, layer = text.partition("@")
        try:
            caps.append(LayerCap(layer_id=int(layer), load_cap=float(cap)))
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is not RATIO@LAYER, such as 1.1@3.", param_hint="--layer-load-cap"
            ) from None
    return tuple(caps)


def read_groups(texts: Sequence[str]) -> tuple[Group, ...]:
    """Read ``1,2,3`` or ``1,2,3@layer``."""
    from placement import Group

    groups = []
    for text in texts:
        members, at, layer = text.partition("@")
        try:
            experts = tuple(int(part) for part in members.split(","))
            groups.append(Group(experts=experts, layer_id=int(layer) if at else None))
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is not EXPERT,EXPERT or EXPERT,EXPERT@LAYER.", param_hint="--group"
            ) from None
    return tuple(groups)

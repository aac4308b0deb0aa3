"""What the texts of options mean: numbers, layers, the model, machines, plans, and how to read a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from api.cli.console import say

if TYPE_CHECKING:
    from placement import Plan, Topology
    from solvers.seeds import Restarts
    from traces import ModelLayout

__all__ = [
    "load_options",
    "local_options",
    "number_or_none",
    "read_layer_ids",
    "read_model",
    "read_options",
    "read_placement",
    "read_restarts",
    "read_topology",
    "row_options",
]

MAX_LAYERS = 100_000


def number_or_none(text: str, option: str) -> float | None:
    """Read a number, or None from ``none``."""
    if text.strip().lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor 'none'.", param_hint=option) from None


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


def row_options(top_k: int | None, drop_dummy: bool) -> dict[str, Any]:
    """Return further keyword arguments of `traces.load`, as far as they are given."""
    return {} | ({} if top_k is None else {"top_k": top_k}) | ({"drop_dummy_rows": True} if drop_dummy else {})


def local_options(workers: int | None, executor: str | None, seeds: int, plan_format: str | None) -> dict[str, object]:
    """Return, by name, the options of a search that are for this process or its own files; None where not given."""
    given: dict[str, object] = {"--workers": workers, "--executor": executor, "--plan-format": plan_format}
    return given | {"--seeds": seeds if seeds > 1 else None}


def read_restarts(seeds: int, executor: str | None) -> Restarts | None:
    """Return how often to search and where; None for once, in this process."""
    if seeds == 1 and executor is None:
        return None
    from api.jobs.executors import executor_factory
    from api.settings.addresses import LOCAL
    from solvers.seeds import Restarts

    return Restarts(seeds=seeds, executor=executor_factory(executor or LOCAL, "--executor"))


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
        from traces.model.config import load_model_config

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

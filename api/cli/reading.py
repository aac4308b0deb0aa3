"""How a trace is read, as options; and the model, machines and plans that options name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge, Le, doc

from api.cli.texts import read_layer_ids
from traces.support.declared import check_declared
from traces.support.errors import InputError, Violations
from traces.support.words import Beyond, Phase

if TYPE_CHECKING:
    from placement import Topology
    from solvers.seeds import MakeExecutor
    from solvers.sources.source import Source
    from traces import ModelLayout

__all__ = [
    "TraceReading",
    "open_planned",
    "read_executor",
    "read_model",
    "read_topology",
]


@dataclass(frozen=True, kw_only=True)
class TraceReading:
    """How to read a trace: what its file does not say.

    Attributes
    ----------
    model : str or None
        The model's ``config.json``.
    format : str or None
        Name of a trace format.
    layer_ids : str or None
        Model layers, ``1,2,5`` or ``1-26``.
    layers : str or None
        The only model layers to take, ``3-5``.
    num_experts, top_k : int or None
    drop_dummy_rows : bool
    ids_beyond_experts : {"refuse", "none"} or None
    layer_base : int or None
    phase : {"prefill", "decode"} or None
    num_layers, first_moe_layer, num_mtp_layers : int or None
        The model's layers, in place of `model`.
    moe_layers : str or None
        Layers with experts, ``1,3,5-47``, in place of `first_moe_layer`.
    """

    model: Annotated[
        str | None, doc("The model's config.json, or its name, such as deepseek-v3: MoE layers, experts, top-k.")
    ] = None
    format: Annotated[str | None, doc("Trace format; found by content by default.")] = None
    layer_ids: Annotated[str | None, doc("Model layers, where the file does not say them: 1,2,5 or 1-26.")] = None
    layers: Annotated[
        str | None,
        doc("Only these model layers: 3,4 or 0-3; --num-experts is theirs. For models whose layers differ in experts."),
    ] = None
    num_experts: Annotated[int | None, Ge(1), doc("Experts per layer, where the file does not say it.")] = None
    top_k: Annotated[int | None, Ge(1), doc("Experts per token, where the file does not say it.")] = None
    drop_dummy_rows: Annotated[
        bool, doc("Leave out rows of warm-up: repeats of the row before, and rows of a single id.")
    ] = False
    ids_beyond_experts: Annotated[
        Beyond | None,
        doc(
            "Ids of num_experts and above, as of fused shared or zero-computation experts: none takes them as no "
            "routed expert; refused by default."
        ),
    ] = None
    layer_base: Annotated[
        int | None, Ge(0), Le(1), doc("What layers of a Megatron trace are counted from, where it does not tell.")
    ] = None
    phase: Annotated[Phase | None, doc("Only the tokens of one phase, of traces that have phases.")] = None
    num_layers: Annotated[int | None, doc("Layers of the model, dense ones included; without a config.json.")] = None
    first_moe_layer: Annotated[int | None, doc("First layer with experts, counted from 0; with --model-layers.")] = None
    moe_layers: Annotated[
        str | None, doc("Layers with experts, where others lie between them: 1,3,5-47; with --model-layers.")
    ] = None
    num_mtp_layers: Annotated[int | None, doc("Layers for multi-token prediction; with --model-layers.")] = None

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        found.raise_if_any()
        read_layer_ids(self.layer_ids)  # wrong usage is told before any file is opened
        read_layer_ids(self.layers, "--layers")
        _check_model_options(self.model, self.num_layers, self.first_moe_layer, self.num_mtp_layers, self.moe_layers)

    def layout(self) -> ModelLayout | None:
        """Return the model's layers; None where nobody says anything."""
        return read_model(self.model, self.num_layers, self.first_moe_layer, self.num_mtp_layers, self.moe_layers)

    def load_options(self, model: ModelLayout | None) -> dict[str, Any]:
        """Return the keyword arguments of `traces.load`."""
        options: dict[str, Any] = {
            "num_experts": self.num_experts,
            "layer_ids": read_layer_ids(self.layer_ids),
            "format": self.format,
        }
        given = {
            "model": model,
            "top_k": self.top_k,
            "drop_dummy_rows": self.drop_dummy_rows or None,
            "ids_beyond_experts": self.ids_beyond_experts,
            "layer_base": self.layer_base,
            "phase": self.phase,
            "layers": read_layer_ids(self.layers, "--layers"),
        }
        return options | {name: value for name, value in given.items() if value is not None}

    def named_layers(self) -> tuple[int, ...] | None:
        """Return what the layers are called, where that was given."""
        ids = read_layer_ids(self.layer_ids)
        return None if ids is None else tuple(ids)


def open_planned(trace: Path, reading: TraceReading, model: ModelLayout | None) -> Source:
    """Open a trace, a load matrix or a saved profile; a profile knows its layers, and its model has to fit them.

    Raises
    ------
    InputError
    """
    from solvers.sources.source import open_source
    from traces.profile.saved import is_profile

    if model is None or not is_profile(trace):
        return open_source(trace, **reading.load_options(model))
    source: Any = open_source(trace, **reading.load_options(None))
    layers = source.layer_ids.tolist()
    experts = model.num_experts
    if not set(layers) <= set(model.all_moe_layers) or experts not in (None, source.num_experts):
        detail = (
            f"{trace.name} has {source.num_experts} experts in layers {layers[0]} to {layers[-1]}, the model "
            f"{experts or 'some'} in layers {model.all_moe_layers[0]} to {model.all_moe_layers[-1]}."
        )
        raise InputError.of("model_differs", "/model", detail, "Give the config.json of the model that was recorded.")
    opened: Source = source
    return opened


def read_executor(seeds: int, executor: str | None) -> MakeExecutor | None:
    """Return where several seeds are searched; None for one, in this process."""
    if seeds == 1 and executor is None:
        return None
    from api.jobs.executors import executor_factory
    from api.settings.addresses import LOCAL

    return executor_factory(executor or LOCAL, "--executor")


def _check_model_options(
    config: str | Path | None,
    model_layers: int | None,
    first_moe_layer: int | None,
    mtp_layers: int | None,
    moe_layers: str | None,
) -> None:
    """Refuse options on the model that have no effect beside each other."""
    parts = {"--first-moe-layer": first_moe_layer, "--moe-layers": moe_layers, "--mtp-layers": mtp_layers}
    given = [option for option, value in parts.items() if value is not None]
    if config is not None and (given or model_layers is not None):
        option = "--model-layers" if model_layers is not None else given[0]
        raise typer.BadParameter("The config says it already: leave one out.", param_hint=option)
    if model_layers is None and given:
        raise typer.BadParameter("It needs --model-layers.", param_hint=given[0])
    if first_moe_layer is not None and moe_layers is not None:
        raise typer.BadParameter("--first-moe-layer says it already: leave one out.", param_hint="--moe-layers")
    read_layer_ids(moe_layers, "--moe-layers")


def read_model(
    config: str | Path | None,
    model_layers: int | None,
    first_moe_layer: int | None = None,
    mtp_layers: int | None = None,
    moe_layers: str | None = None,
) -> ModelLayout | None:
    """Return the model's layers, from its config or from numbers; None where nobody says anything."""
    _check_model_options(config, model_layers, first_moe_layer, mtp_layers, moe_layers)
    if config is not None:
        from traces.model.presets import layout_of

        return layout_of(config)
    if model_layers is None:
        return None
    from traces import ModelLayout

    listed = read_layer_ids(moe_layers, "--moe-layers")
    return ModelLayout.of(
        model_layers, first_moe_layer=first_moe_layer or 0, moe_layers=listed, num_mtp_layers=mtp_layers or 0
    )


def read_topology(text: str) -> Topology:
    """Read ``4x8``, ``8+8+4``, ``hgx_h100:4`` or a topology file."""
    from placement import load_topology

    return load_topology(text)

"""The time model of a simulation: as asked, and what stands in where machine or model are not named."""

from __future__ import annotations

from dataclasses import replace

from placement import Topology
from placement.time import Machine, TimeModel
from placement.time.gpus import gpu_named
from solvers.policies.request import PolicyRequest
from traces import InputError, ModelLayout, Series, Violations
from traces.model.presets import Model, load_model, preset_names

__all__ = ["time_of"]

ASSUMED_GPU, ASSUMED_MODEL = "h200", "deepseek-v3"


def time_of(series: Series, request: PolicyRequest) -> tuple[TimeModel, Topology, tuple[str, ...]]:
    """Return the time model, the topology to plan for, and notes on what was assumed.

    Raises
    ------
    InputError
        If machine, topology, model and series do not fit together, or a name is not known.
    """
    notes = []
    topology = request.topology
    assert not isinstance(topology, str)
    machine = None if request.machine is None else Machine.parse(request.machine)
    if machine is None:
        assert topology is not None
        machine = Machine(
            name=f"{ASSUMED_GPU}:{topology.name}",
            gpus=(gpu_named(ASSUMED_GPU),) * topology.num_gpus,
            node_of_gpu=tuple(topology.node_of_gpu.tolist()),
        )
        notes.append(f"No machine was named: times are those of {machine.num_gpus} {ASSUMED_GPU.upper()}.")
    elif topology is not None and topology.node_of_gpu.tolist() != machine.nodes.tolist():
        detail = f"The machine {machine.name} has other nodes than the topology {topology.name}."
        raise InputError.of("nodes_differ", "/machine", detail, "Give one of both, or the same nodes in both.")
    model = _assumed_model(series, notes) if request.model is None else load_model(request.model)
    time = TimeModel.of(machine, model, phase=request.phase, tokens_per_gpu=request.tokens_per_gpu)
    _check(series, time)
    notes += time.notes
    if len(series.layer_ids) != len(model.layout.moe_layers):
        notes.append(
            f"The step is of the {len(series.layer_ids)} MoE layers that were recorded; {model.name} has "
            f"{len(model.layout.moe_layers)}."
        )
    return time, time.topology if topology is None else topology, tuple(notes)


def _assumed_model(series: Series, notes: list[str]) -> Model:
    """Return the preset with these layers and experts, or one with experts of a usual size."""
    layers, experts = len(series.layer_ids), series.num_experts
    top_k = None if series.windows[0].tokens is None else series.windows[0].tokens.top_k
    for name in preset_names():
        model = load_model(name)
        same = len(model.layout.moe_layers) == layers and model.shape.num_experts == experts
        if same and top_k in (None, model.shape.top_k):
            notes.append(f"No model was named: it is taken for {name}, which has these layers and experts.")
            return model
    like = load_model(ASSUMED_MODEL)
    own = min(like.shape.top_k, experts) if top_k is None else top_k
    notes.append(
        f"No model was named, and none is known with {layers} MoE layers of {experts} experts: experts as large as "
        f"those of {ASSUMED_MODEL} are assumed, {own} per token."
    )
    return Model(
        name=f"{experts} experts like {ASSUMED_MODEL}'s",
        source=like.source,
        layout=ModelLayout.of(layers),
        shape=replace(like.shape, num_experts=experts, top_k=own),
    )


def _check(series: Series, time: TimeModel) -> None:
    found, shape = Violations(), time.model.shape
    if shape.num_experts != series.num_experts:
        detail = f"{time.model.name} has {shape.num_experts} experts, the series {series.num_experts}."
        found.add("experts_differ", "/model", detail, "Name the model that was recorded.")
    tokens = series.windows[0].tokens
    if tokens is not None and shape.top_k < tokens.top_k:
        detail = f"{time.model.name} routes a token to {shape.top_k} experts, the series has {tokens.top_k}."
        found.add("top_k_differs", "/model", detail, "Name the model that was recorded.")
    found.raise_if_any()

"""What a caller knows about a placement file, and which formats have a use for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from traces import ModelLayout

__all__ = ["TAKERS", "Context"]

# Fields of `Context` that only some formats have a use for, and which these are.
TAKERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "layer": ("deepspeed",),
        "model_class": ("hygon",),
        "mtp_model_class": ("hygon",),
        "model_name": ("hygon",),
        "pipeline_stages": ("hygon",),
    }
)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the caller knows that a plan or a file does not say.

    Attributes
    ----------
    model : ModelLayout, optional
        The model's layers: translates layer indices, and tells whether layers are missing.
    layer_ids : tuple of int, optional
        Reading: layers of the model, for files that count them, in place of `model`.
    num_experts : int, optional
        Reading: experts per layer, for files that don't state it.
    gpus_per_node : tuple of int, optional
        Reading: the nodes; gives the number of GPUs, which many files don't state.
    fill_missing : bool
        Writing: give layers that the plan lacks the contiguous layout.
    without_mtp : bool
        The engine runs without multi-token prediction: its layers are neither written nor asked for.
    layer : int, optional
        Writing: the one layer to write, for formats that hold one.
    model_class, mtp_model_class, model_name : str, optional
        Names of the engine's classes for the model and its MTP part, and of the model, for formats that are keyed by
        them.
    pipeline_stages : tuple of int, optional
        Writing: layers of the model in each stage of its pipeline, for formats that have a map per stage.
    """

    model: ModelLayout | None = None
    layer_ids: tuple[int, ...] | None = None
    num_experts: int | None = None
    gpus_per_node: tuple[int, ...] | None = None
    fill_missing: bool = False
    without_mtp: bool = False
    layer: int | None = None
    model_class: str | None = None
    mtp_model_class: str | None = None
    model_name: str | None = None
    pipeline_stages: tuple[int, ...] | None = None

    @property
    def num_gpus(self) -> int | None:
        """Number of GPUs, where the nodes are known."""
        return None if self.gpus_per_node is None else sum(self.gpus_per_node)

    @property
    def experts(self) -> int | None:
        """Experts per layer as the caller says, or as the model has them."""
        if self.num_experts is None and self.model is not None:
            return self.model.num_experts
        return self.num_experts

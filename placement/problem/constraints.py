"""What a plan must keep: load cap, pins, exclusions, groups on one node, replicas on different GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Constraints", "Group", "LayerCap", "LoadGroups", "Pin"]

LoadGroups = Literal["windows", "sequences"]


@dataclass(frozen=True, kw_only=True)
class Pin:
    """An expert and a GPU; ``layer_id`` is the model layer, None for all layers."""

    expert: int
    gpu: int
    layer_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Experts whose replicas all stay on one node; ``layer_id`` is the model layer, None for all layers."""

    experts: tuple[int, ...]
    layer_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class LayerCap:
    """A load cap for one model layer, in place of the one for all."""

    layer_id: int
    load_cap: float


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Constraints of a problem.

    Attributes
    ----------
    load_cap : float or None
        Largest allowed load of a GPU relative to its fair share, in every layer (max/mean for equal GPUs). Where a
        single expert makes it unattainable, the excess is minimised and the plan says so.
    layer_load_caps : tuple of LayerCap
        Caps of single layers, in place of `load_cap` there. Layers that are not listed keep `load_cap`, if any.
    load_quantile : float or None
        At least 0.5, below 1. The cap then holds for this quantile of each GPU's load, under a normal model: for the
        expected load plus ``z(load_quantile)`` standard errors. None: for the expected load. 0.95 is the usual
        one-sided level; leave the cap room for 1.6 standard errors of a balanced GPU.
    load_groups : {"windows", "sequences"} or None
        Tokens that are drawn together, over which the standard error of a load is taken: windows of consecutive tokens,
        or whole sequences (needs `seq_id`), which assumes less. None: sequences if there is a load quantile and the
        profile knows two buckets of them or more, else windows.
    pins : tuple of Pin
        A replica of the expert must be on the GPU.
    forbidden : tuple of Pin
        No replica of the expert may be on the GPU.
    groups : tuple of Group
        Experts kept on one node.
    distinct_replicas : bool
        No GPU holds two replicas of an expert.
    extra_replicas : int or None
        Replicas beyond one of each expert that all layers may have together; a layer may have more of them than
        another, as far as `Problem.slots_per_gpu` has room. None: as many as there is room for.
    extra_bytes : int or None
        The same budget in bytes: so many replicas as fit it, at `Problem.expert_bytes` each, all GPUs together. Given
        beside `extra_replicas`, both have to mean the same number.
    """

    load_cap: float | None = None
    layer_load_caps: tuple[LayerCap, ...] = ()
    load_quantile: float | None = None
    load_groups: LoadGroups | None = None
    pins: tuple[Pin, ...] = ()
    forbidden: tuple[Pin, ...] = ()
    groups: tuple[Group, ...] = ()
    distinct_replicas: bool = True
    extra_replicas: int | None = None
    extra_bytes: int | None = None

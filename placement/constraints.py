"""What a plan must keep: load cap, pins, exclusions, groups on one node, copies on different GPUs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Constraints", "Group", "Pin"]


@dataclass(frozen=True, kw_only=True)
class Pin:
    """An expert and a GPU; ``layer_id`` is the model layer, None for all layers."""

    expert: int
    gpu: int
    layer_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Experts whose copies all stay on one node; ``layer_id`` is the model layer, None for all layers."""

    experts: tuple[int, ...]
    layer_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Constraints of a problem.

    Attributes
    ----------
    load_cap : float or None
        Largest allowed load of a GPU relative to its fair share, in every layer (max/mean for equal GPUs). Where a
        single expert makes it unattainable, the excess is minimised and the plan says so.
    pins : tuple of Pin
        A copy of the expert must be on the GPU.
    forbidden : tuple of Pin
        No copy of the expert may be on the GPU.
    groups : tuple of Group
        Experts kept on one node.
    distinct_copies : bool
        No GPU holds two copies of an expert.
    """

    load_cap: float | None = None
    pins: tuple[Pin, ...] = ()
    forbidden: tuple[Pin, ...] = ()
    groups: tuple[Group, ...] = ()
    distinct_copies: bool = True

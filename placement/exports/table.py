"""The rules that an engine has, and a placement that is to be checked by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from placement.plan.plan import Plan

__all__ = ["Rules", "Table"]

Layers = Literal["rows", "ordinals", "keys", "none"]
Mtp = Literal["no", "may", "must"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What an engine takes.

    Attributes
    ----------
    layers : {"rows", "ordinals", "keys", "none"}
        How the file names layers: all layers of the model, MoE layers counted from 0, MoE layers by their number in the
        model, or not at all (one map for every layer).
    replicas : bool
        Whether an expert may have several slots.
    distinct : bool
        Whether two replicas of an expert on one GPU are refused.
    empty : bool
        Whether slots may be empty.
    mtp : {"no", "may", "must"}
        Whether the layers for multi-token prediction are part of the file.
    covered : bool
        Whether every MoE layer must be there.
    order : bool
        Whether the file keeps the order of the slots of a GPU; where not, a plan that is read back lists them by
        expert.
    """

    layers: Layers
    replicas: bool = True
    distinct: bool = True
    empty: bool = False
    mtp: Mtp = "no"
    covered: bool = True
    order: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """A placement that is to be checked: nothing about it is certain but the shapes.

    Attributes
    ----------
    slots : (L, S) int64
        Expert of each slot; -1 is empty.
    layer_ids : (L,) int64
        Rising.
    num_experts : int
    num_gpus : int or None
        None where neither file nor caller says it.
    places : tuple of str
        Pointer to each row, for errors.
    notes : tuple of str
        What was assumed.
    plan : Plan or None
        Where it comes from, if it is written.
    """

    slots: npt.NDArray[np.int64]
    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    num_gpus: int | None
    places: tuple[str, ...]
    notes: tuple[str, ...] = ()
    plan: Plan | None = None

    def rows_of_gpus(self, row: int) -> list[list[int]]:
        """Return the experts of each GPU in a layer, in the order of the slots, empty ones left out."""
        gpus = self.slots[row].reshape(self.num_gpus or 1, -1)
        return [[expert for expert in slots if expert >= 0] for slots in gpus.tolist()]

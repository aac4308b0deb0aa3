"""Where an engine puts experts when nobody plans."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from traces.support.errors import InputError

if TYPE_CHECKING:
    from placement.engines.engine import Layout

__all__ = ["default_slots"]


def default_slots(layout: Layout, num_experts: int, num_gpus: int, slots_per_gpu: int) -> list[int]:
    """Return the expert of each slot of a layer, in an engine's own layout.

    Parameters
    ----------
    layout : {"contiguous", "modulo", "overlapping"}
        ``contiguous``: experts in order, in blocks as equal as can be, one per GPU; spare slots are empty. ``modulo``:
        slot s of the whole layer holds expert ``s % E``, so the redundant experts are the first ones, on the last
        GPUs. ``overlapping``: GPU g holds the experts from ``g * E // G`` on, as many as it has slots, the first
        expert following the last: the redundant experts of a GPU are the first ones of the next.
    num_experts, num_gpus, slots_per_gpu : int
        E, G and C.

    Returns
    -------
    list of int
        G * C experts, GPU by GPU; -1 is an empty slot.

    Raises
    ------
    InputError
        If there are fewer slots than experts.
    """
    if num_gpus * slots_per_gpu < num_experts:
        detail = f"{num_gpus} GPUs with {slots_per_gpu} slots each have no room for {num_experts} experts."
        raise InputError.of("slots_too_few", "/slots_per_gpu", detail, "Give more slots, or more GPUs.")
    if layout == "modulo":
        return [slot % num_experts for slot in range(num_gpus * slots_per_gpu)]
    starts = [gpu * num_experts // num_gpus for gpu in range(num_gpus + 1)]
    if layout == "overlapping":
        return [(start + slot) % num_experts for start in starts[:-1] for slot in range(slots_per_gpu)]
    slots = []
    for start, end in pairwise(starts):
        slots += [*range(start, end), *[-1] * (slots_per_gpu - (end - start))]
    return slots

"""How long a fleet stands still while experts change places."""

from __future__ import annotations

from typing import Final

from placement.advice.without_ep import weights_gb
from placement.time.collectives import OF_DATA_SHEET
from placement.time.model import TimeModel

__all__ = ["stall_s"]

# What engines take per slot beside moving its bytes: launching sends and receives tensor by tensor, copies into buffers
# and back. vllm-project/vllm#28369: DeepSeek-V2-Lite on 8 H100, 26 layers of 8 slots, 260 ms of which 10 plan.
MS_PER_SLOT: Final = 1.2


def stall_s(time: TimeModel, slots: int, moved: float = 1.0) -> float:
    """Return the seconds that a synchronous rearrangement takes.

    Parameters
    ----------
    time : TimeModel
    slots : int
        Of a GPU and layer.
    moved : float
        Share of the slots that get another expert.
    """
    machine = time.machine
    inside = min(gpu.nvlink_gb_s for gpu in machine.gpus)
    slowest = inside if machine.num_nodes == 1 else float(machine.network_gb_s.min())
    layers = len(time.model.layout.moe_layers)
    moving: float = weights_gb(time, slots) * moved / (OF_DATA_SHEET * slowest)
    return layers * slots * moved * MS_PER_SLOT / 1e3 + moving

"""How long a fleet stands still while experts change places."""

from __future__ import annotations

from typing import Final

from placement.advice.without_ep import weights_gb
from placement.engines import engine_of
from placement.time.collectives import OF_DATA_SHEET
from placement.time.model import TimeModel

__all__ = ["stall_s"]

# Gigabytes per second and GPU at which engines move experts, tensor by tensor through buffers and in step with the
# host: within an NVLink domain (vllm-project/vllm#28369: DeepSeek-V2-Lite on 8 H100, 26 layers of 8 slots in 250 ms
# besides planning), and between nodes (vllm-project/vllm#24116: 15 s with EP32, taken as DeepSeek-V3 in 8 bits with 9
# slots; sgl-project/sglang#6739: 1.8 s, taken as for as much).
INSIDE_GB_S: Final = 14.4
BETWEEN_GB_S: Final[dict[str | None, float]] = {"sglang": 12.8}
SLOWEST_GB_S: Final = 1.53  # vLLM's, and of engines that nobody has published of


def stall_s(time: TimeModel, slots: int, moved: float = 1.0, engine: str | None = None) -> float:
    """Return the seconds that a synchronous rearrangement takes.

    Parameters
    ----------
    time : TimeModel
    slots : int
        Of a GPU and layer.
    moved : float
        Share of the slots that get another expert.
    engine : str, optional
        That moves them, with or without its dispatch algorithm (``sglang:static``).
    """
    machine = time.machine
    if machine.num_nodes == 1:
        rate, link = INSIDE_GB_S, min(gpu.nvlink_gb_s for gpu in machine.gpus)
    else:
        name = None if engine is None else engine_of(engine).engine.name
        rate, link = BETWEEN_GB_S.get(name, SLOWEST_GB_S), float(machine.network_gb_s.min())
    found: float = weights_gb(time, slots) * moved / min(rate, OF_DATA_SHEET * link)
    return found

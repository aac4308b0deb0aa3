"""What it costs to go from what GPUs hold to a plan: experts, bytes by pair of GPUs, and time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.moves.kernels import choose_sources
from placement.moves.links import Links
from placement.plan.plan import replicas_on_gpu
from traces.support.content import ByContent

__all__ = ["STALL_S", "Moves", "moves_between"]

Ints = npt.NDArray[np.int64]
# Measured: a rearrangement of all layers stops 32 GB200 for .91 s (vllm-project/vllm#43219), its transfers included;
# others take .7 to 1.1 s (Gimbal). Counting the transfers as well errs to the side of moving too little.
STALL_S = 0.91


@dataclass(frozen=True, kw_only=True, eq=False)
class Moves(ByContent):
    """Experts that GPUs have to be sent.

    Attributes
    ----------
    arrivals : (M, 4) int64
        Layer row, expert, GPU, and the GPU that sends it: the one on the same node that has sent least in this layer,
        else any such; -1 where no GPU holds it, so that it is loaded from the checkpoint.
    node_of_gpu : (G,) int64
    expert_bytes : int or None
        Bytes of an expert's weights in one layer.
    """

    arrivals: Ints
    node_of_gpu: Ints
    expert_bytes: int | None

    @property
    def experts(self) -> int:
        """How many experts move, all layers together."""
        return len(self.arrivals)

    @property
    def bytes(self) -> int | None:
        """Bytes that GPUs are sent; None where the size of an expert is unknown."""
        return None if self.expert_bytes is None else self.experts * self.expert_bytes

    @cached_property
    def between_nodes(self) -> int:
        """Arrivals that come from another node."""
        source, gpu = self.arrivals[:, 3], self.arrivals[:, 2]
        return int(((source >= 0) & (self.node_of_gpu[source] != self.node_of_gpu[gpu])).sum())

    @property
    def from_checkpoint(self) -> int:
        """Arrivals that no GPU holds."""
        return int((self.arrivals[:, 3] < 0).sum())

    @cached_property
    def by_pair(self) -> Ints:
        """Experts from each GPU to each GPU, (G, G); those from the checkpoint are left out."""
        gpus = len(self.node_of_gpu)
        found = np.zeros((gpus, gpus), np.int64)
        sent = self.arrivals[self.arrivals[:, 3] >= 0]
        np.add.at(found, (sent[:, 3], sent[:, 2]), 1)
        return found

    def by_layer(self, layers: int) -> Ints:
        """Return the arrivals of each layer, (L,)."""
        return np.bincount(self.arrivals[:, 0], minlength=layers).astype(np.int64)

    def transfer_s(self, links: Links | None) -> float | None:
        """Return how long the transfers take, layer after layer; None where sizes or links are unknown.

        SGLang and vLLM exchange the experts of one layer at a time, through a buffer of one layer, all GPUs together
        (`sglang/srt/eplb/expert_location_updater.py`, `vllm/distributed/eplb/rebalance_execute.py`).
        """
        if links is None or self.expert_bytes is None:
            return None
        parts = np.split(self.arrivals, np.flatnonzero(np.diff(self.arrivals[:, 0])) + 1)
        return sum(links.seconds(part[:, 3], part[:, 2], self.expert_bytes) for part in parts)


def moves_between(
    before: npt.NDArray[np.integer[Any]],
    after: npt.NDArray[np.integer[Any]],
    num_experts: int,
    node_of_gpu: Ints,
    expert_bytes: int | None = None,
) -> Moves:
    """Return what GPUs have to be sent to go from one map to another.

    Parameters
    ----------
    before : (L, G * B) integers
        What GPUs hold; experts may be missing.
    after : (L, G * C) integers
    num_experts : int
    node_of_gpu : (G,) int64
    expert_bytes : int, optional
        Bytes of an expert's weights in one layer.
    """
    gpus = len(node_of_gpu)
    held, wanted = (replicas_on_gpu(table, num_experts, gpus) > 0 for table in (before, after))
    arrivals = np.argwhere(wanted & ~held).astype(np.int64)
    source = choose_sources(held, arrivals, np.asarray(node_of_gpu))
    rows = np.concatenate([arrivals, source[:, None]], axis=1)
    rows.flags.writeable = False
    return Moves(arrivals=rows, node_of_gpu=node_of_gpu, expert_bytes=expert_bytes)

"""The machine as time needs it: which GPU each rank is, and how the ranks form nodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from placement.time.gpus import Gpu, gpu_named
from placement.topology.topology import Topology
from traces import InputError
from traces.support.kinds import checked

__all__ = ["Machine"]

REMEDY = (
    "Write GPU:nodes x GPUs per node, such as h200:4x8; join classes of devices by +, such as h200:2x8+h20:2x8; for "
    "uplinks that the GPUs of a node share, add their GB/s: h200:4x8@100."
)

BY_MEMORY = (
    "Loads that are fair for {kinds} follow their memory bandwidth: name the model, or give speeds in a topology file, "
    "for what their kernels take."
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """GPUs of one or several kinds, in nodes (NVLink domains).

    Attributes
    ----------
    name : str
        As it was written.
    gpus : tuple of Gpu
        The GPU of each rank, (G,).
    node_of_gpu : tuple of int
        Node of each rank, (G,); each node is one run of ranks.
    uplink_gb_s : tuple of float
        Gigabytes per second and direction of the uplink that the ranks of a node share, (N,): infinite where they
        don't; empty where none do.
    """

    MADE_BY: ClassVar = "Use placement.time.Machine.parse('h200:4x8')."

    name: str
    gpus: tuple[Gpu, ...]
    node_of_gpu: tuple[int, ...]
    uplink_gb_s: tuple[float, ...] = ()

    @classmethod
    @checked
    def parse(cls, text: str) -> Machine:
        """Read ``GPU:NODESxGPUS``; classes of devices are joined by ``+``.

        Parameters
        ----------
        text : str
            Such as ``h200:4x8``, ``gb200:1x64`` (one NVLink domain) or ``h200:2x8+h20:2x8``. Oversubscribed uplinks
            are behind an ``@``: with ``h200:4x8@100``, the GPUs of a node share 100 GB/s per direction to other nodes.

        Raises
        ------
        InputError
            If it is not of this form, or names a GPU that is not known.
        """
        gpus: list[Gpu] = []
        nodes: list[int] = []
        uplinks: list[float] = []
        for part in text.split("+"):
            name, colon, sizes = part.strip().partition(":")
            if not colon or not sizes:
                raise InputError.of("machine_form", "/machine", f"{text!r:.60} names no GPU or no sizes.", REMEDY)
            gpu = gpu_named(name.strip())
            sizes, shared, speed = sizes.partition("@")
            shape = Topology.parse(sizes.strip())
            uplinks += [_uplink(text, speed) if shared else np.inf] * shape.num_nodes
            first = nodes[-1] + 1 if nodes else 0
            gpus += [gpu] * shape.num_gpus
            nodes += (shape.node_of_gpu + first).tolist()
        found = cls(name=text.strip(), gpus=tuple(gpus), node_of_gpu=tuple(nodes), uplink_gb_s=tuple(uplinks))
        if found.num_nodes == 1 and found.has_uplinks:
            detail = f"{text!r:.60} has an uplink and no other node."
            raise InputError.of("without_effect", "/machine", detail, "Leave the uplink out.")
        return found

    @property
    def has_uplinks(self) -> bool:
        """Whether the ranks of any node share an uplink."""
        return min(self.uplink_gb_s, default=np.inf) < np.inf

    @cached_property
    def network_gb_s(self) -> npt.NDArray[np.float64]:
        """Gigabytes per second and direction from each rank to other nodes while all ranks use their links, (G,)."""
        own = np.array([gpu.network_gb_s for gpu in self.gpus])
        if not self.has_uplinks:
            return own
        share = np.array(self.uplink_gb_s) / np.bincount(self.nodes)
        found: npt.NDArray[np.float64] = np.minimum(own, share[self.nodes])
        return found

    @property
    def num_gpus(self) -> int:
        """Number of ranks, G."""
        return len(self.gpus)

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return self.node_of_gpu[-1] + 1

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the GPUs there are, in order of their first rank."""
        return tuple(dict.fromkeys(gpu.name for gpu in self.gpus))

    @cached_property
    def nodes(self) -> npt.NDArray[np.int64]:
        """Node of each rank, (G,) int64."""
        return np.array(self.node_of_gpu, np.int64)

    @cached_property
    def kind_of_gpu(self) -> npt.NDArray[np.int64]:
        """Index into `kinds` of each rank's GPU, (G,) int64."""
        order = {name: index for index, name in enumerate(self.kinds)}
        return np.array([order[gpu.name] for gpu in self.gpus], np.int64)

    @cached_property
    def pair_gb_s(self) -> npt.NDArray[np.float64]:
        """Gigabytes per second from rank to rank by the data sheets: of the slower of both ends' links, (G, G)."""
        inside, across = np.array([gpu.nvlink_gb_s for gpu in self.gpus]), self.network_gb_s
        same = self.nodes[:, None] == self.nodes[None, :]
        found: npt.NDArray[np.float64] = np.where(
            same, np.minimum.outer(inside, inside), np.minimum.outer(across, across)
        )
        return found

    def topology(self, speed: npt.ArrayLike | None = None, notes: tuple[str, ...] = ()) -> Topology:
        """Return the topology of the same nodes, for plans and searches.

        Hops cost what a byte takes over the links of the two ranks, so that costs are in proportion to time: a node
        behind a slow uplink is dear to reach and to leave, and no other is. The fastest pair of two nodes costs 1, of
        a single node every pair.

        Parameters
        ----------
        speed : (G,) floats, optional
            Relative speed of each rank, as `TimeModel.topology` knows it for a model and a phase; in proportion to
            memory bandwidth otherwise, which a note tells where there are several classes of devices.
        notes : tuple of str
        """
        pair = self.pair_gb_s
        cost = (
            pair[self.nodes[:, None] != self.nodes].max(initial=0.0) / pair
            if self.num_nodes > 1
            else np.ones_like(pair)
        )
        np.fill_diagonal(cost, 0)
        if speed is None:
            memory = np.array([gpu.hbm_gb_s for gpu in self.gpus])
            speed = memory / memory.max()
            notes += (BY_MEMORY.format(kinds=" and ".join(self.kinds)),) if len(self.kinds) > 1 else ()
        return Topology(
            name=self.name,
            node_of_gpu=self.nodes,
            hop_cost=cost,
            speed=np.asarray(speed, float),
            memory_gb=np.array([gpu.memory_gb for gpu in self.gpus]),
            host_of_gpu=self.nodes,
            notes=notes,
        )


def _uplink(text: str, speed: str) -> float:
    """Return the gigabytes per second behind an ``@``."""
    try:
        found = float(speed)
    except ValueError:
        found = 0.0
    if not 0 < found < np.inf:
        raise InputError.of("uplink_speed", "/machine", f"{text!r:.60}: {speed!r:.20} is no speed in GB/s.", REMEDY)
    return found

"""The machine: GPUs, the nodes (NVLink domains) they form, what a hop costs, how much fits and how fast each GPU is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from placement.topology.arrays import ARRAYS, check_arrays, own_arrays, vector, whole
from placement.topology.assumed import assumed_links, order_warnings
from placement.topology.links import FASTEST, LARGEST, MAX_GPUS, SLOWEST, Link
from placement.topology.shorthand import parse_shorthand
from traces import InputError, Violations
from traces.support.content import ByContent
from traces.support.kinds import checked
from traces.support.shown import Facts, Shown, shorten, spread_of

__all__ = ["Topology"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Topology(Shown, ByContent):
    """GPUs 0..G-1 in rank order; its arrays are read-only copies of those it is given.

    A *node* is the set of GPUs that fast links join (the NVLink domain, on GB200 NVL72 the rack); hosts may be smaller.

    Attributes
    ----------
    name : str
        Short text to show.
    node_of_gpu : (G,) int64
        Nodes 0..N-1, each a run of consecutive GPUs; their sizes may differ.
    hop_cost : (G, G) float64
        Cost of a message from GPU g to h: relative time per byte, 0 on the diagonal, elsewhere 0 or 1e-6 to 1e6. The
        slowest pair of a parsed topology costs 1, so on a flat topology the cost is the number of messages that cross.
    bandwidth_gb_s : (G, G) float64 or None
        Per direction, 0.01 to 10,000; None where only costs are known.
    latency_us : (G, G) float64 or None
        0 to 1e6.
    speed : (G,) float64
        Relative speed of each GPU, 1e-6 to 1e6; the load that is fair for it is proportional.
    memory_gb : (G,) float64 or None
        0 to 1e6.
    slots : (G,) int64 or None
        Expert slots per layer that each GPU has room for; None for no limit.
    host_of_gpu : (G,) int64
    notes : tuple of str
        What was understood of a description, and what is assumed, as sentences. Topologies that differ in nothing else
        are equal.
    """

    MADE_BY: ClassVar = "Use placement.Topology.parse('4x8')."

    name: str
    node_of_gpu: npt.NDArray[np.int64]
    hop_cost: Array
    bandwidth_gb_s: Array | None = None
    latency_us: Array | None = None
    speed: Array
    memory_gb: Array | None = None
    slots: npt.NDArray[np.int64] | None = None
    host_of_gpu: npt.NDArray[np.int64]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name, array in own_arrays({name: getattr(self, name) for name in ARRAYS}).items():
            object.__setattr__(self, name, array)
        found = Violations()
        gpus = len(self.node_of_gpu)
        if not 1 <= gpus <= MAX_GPUS:
            found.add("num_gpus_range", "/gpus_per_node", f"{gpus} GPUs.", f"Give between 1 and {MAX_GPUS} GPUs.")
        else:
            steps = np.diff(self.node_of_gpu)
            if self.node_of_gpu[0] != 0 or not np.isin(steps, (0, 1)).all():
                detail = "Nodes must be numbered 0, 1, ... along the ranks, each one run of GPUs."
                found.add("node_order", "/node_of_gpu", detail, "Sort the ranks by node.")
            check_arrays({name: getattr(self, name) for name in ARRAYS}, gpus, found)
        found.raise_if_any()

    def _shown(self) -> tuple[str, Facts]:
        sizes = spread_of(self.gpus_per_node)
        shown = {"GPUs": f"{self.num_gpus} on {self.num_nodes} node(s) of {sizes}"}
        other = ~np.eye(self.num_gpus, dtype=bool)
        if self.num_gpus > 1:
            shown["hop cost"] = spread_of(self.hop_cost[other])
            if self.bandwidth_gb_s is not None:
                shown["bandwidth"] = f"{spread_of(self.bandwidth_gb_s[other])} GB/s per direction"
            if self.latency_us is not None:
                shown["latency"] = f"{spread_of(self.latency_us[other])} µs"
        shown["speed"] = spread_of(self.speed)
        if self.memory_gb is not None:
            shown["memory"] = f"{spread_of(self.memory_gb)} GB per GPU"
        if self.slots is not None:
            shown["slots"] = f"{spread_of(self.slots)} per GPU and layer"
        hosts = len(np.unique(self.host_of_gpu))
        if hosts != self.num_nodes:
            shown["hosts"] = str(hosts)
        shown |= {f"note {number}": text for number, text in enumerate((*self.notes, *self.warnings), 1)}
        return f"Topology {shorten(self.name)!r}", shown

    @property
    def num_gpus(self) -> int:
        """Number of GPUs, G."""
        return len(self.node_of_gpu)

    @property
    def num_nodes(self) -> int:
        """Number of nodes (NVLink domains), N."""
        return int(self.node_of_gpu[-1]) + 1

    @cached_property
    def gpus_per_node(self) -> tuple[int, ...]:
        """GPUs of each node."""
        return tuple(np.bincount(self.node_of_gpu).tolist())

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What makes no sense in the costs, as sentences: a hop between nodes that costs less than one inside."""
        return order_warnings(self.hop_cost, self.node_of_gpu, self.host_of_gpu)

    @cached_property
    def fair_share(self) -> Array:
        """Share of a layer's load that is fair for each GPU, proportional to its speed, (G,); sums to 1."""
        share: Array = self.speed / self.speed.sum()
        return share

    @cached_property
    def entry_gpu(self) -> npt.NDArray[np.int64]:
        """``entry_gpu[h, n]``: the GPU of node n where messages from GPU h arrive, (G, N).

        The GPU with the same index inside its node, as rail-optimised networks and DeepEP's normal kernels have it; h
        itself in h's own node.
        """
        sizes = np.array(self.gpus_per_node)
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        local = np.arange(self.num_gpus) - first[self.node_of_gpu]
        entry: npt.NDArray[np.int64] = first[None, :] + local[:, None] % sizes[None, :]
        return entry

    @classmethod
    def of(
        cls,
        gpus_per_node: tuple[int, ...],
        *,
        name: str | None = None,
        intra: Link | None = None,
        inter: Link | None = None,
        rank_cost_matrix: npt.ArrayLike | None = None,
        speed: npt.ArrayLike | None = None,
        memory_gb: npt.ArrayLike | None = None,
        slots: npt.ArrayLike | None = None,
        gpus_per_host: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> Topology:
        """Build a two-tier topology, or one with arbitrary costs.

        Parameters
        ----------
        gpus_per_node : tuple of int
            Sizes of the nodes.
        name : str, optional
        intra, inter : Link, optional
            Links within a node and between nodes; the costs follow from the bandwidths. The slowest link costs 1; a
            single node for which `inter` is given keeps the costs that its links have in a cluster. What is left out
            is as on an HGX H100, but never contradicts the other one, and `notes` say what was assumed.
        rank_cost_matrix : (G, G) float, optional
            Costs that replace those of the links.
        speed, memory_gb, slots : (G,) or scalar, optional
        gpus_per_host : int, optional
            Size of a host where it is smaller than a node: divides the size of every node.
        notes : tuple of str
        """
        if not gpus_per_node or any(size < 1 for size in gpus_per_node) or sum(gpus_per_node) > MAX_GPUS:
            raise InputError.of(
                "gpus_per_node",
                "/gpus_per_node",
                f"Node sizes {list(gpus_per_node[:8])}{'...' * (len(gpus_per_node) > 8)} are not valid.",
                f"Every node has at least one GPU, all together at most {MAX_GPUS}.",
            )
        found = Violations()
        for pointer, link in (("/intra_node", intra), ("/inter_node", inter)):
            if link is None:
                continue
            if not SLOWEST <= link.bandwidth_gb_s <= FASTEST:
                detail = f"Bandwidth {link.bandwidth_gb_s} GB/s is not {SLOWEST:g} to {FASTEST:g}."
                found.add("bandwidth_range", f"{pointer}/bandwidth_gb_s", detail, "Give GB/s per GPU and direction.")
            if not 0 <= link.latency_us <= LARGEST:
                detail = f"Latency {link.latency_us} is not 0 to {LARGEST:g}."
                found.add("latency_range", f"{pointer}/latency_us", detail, "Give microseconds.")
        if gpus_per_host is not None and (gpus_per_host < 1 or any(size % gpus_per_host for size in gpus_per_node)):
            detail = f"Hosts of {gpus_per_host} GPUs do not fill nodes of {sorted(set(gpus_per_node))[:8]} GPUs."
            found.add("gpus_per_host", "/gpus_per_host", detail, "Give a number that divides the size of every node.")
        found.raise_if_any()
        inside, between, assumed = assumed_links(gpus_per_node, intra, inter)
        gpus = sum(gpus_per_node)
        node = np.repeat(np.arange(len(gpus_per_node)), gpus_per_node)
        same_gpu = np.eye(gpus, dtype=bool)
        same_node = node[:, None] == node[None, :]
        if rank_cost_matrix is not None:
            try:
                cost = np.array(rank_cost_matrix, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise InputError.of(
                    "matrix_shape", "/rank_cost_matrix", "This is not a matrix of numbers.", "Give G rows of G numbers."
                ) from error
            bandwidth = latency = None
            assumed = ()
        else:
            bandwidth = np.where(same_node, inside.bandwidth_gb_s, between.bandwidth_gb_s).astype(np.float64)
            latency = np.where(same_gpu, 0.0, np.where(same_node, inside.latency_us, between.latency_us))
            slowest = bandwidth[~same_gpu].min() if gpus > 1 else 1.0
            slowest = slowest if inter is None else min(slowest, inter.bandwidth_gb_s)
            cost = np.where(same_gpu, 0.0, slowest / bandwidth)
        if name is None:
            even = len(set(gpus_per_node)) == 1
            name = f"{len(gpus_per_node)}x{gpus_per_node[0]}" if even else "+".join(map(str, gpus_per_node))
        host = node if gpus_per_host is None else np.arange(gpus) // gpus_per_host
        return cls(
            name=name,
            node_of_gpu=node.astype(np.int64),
            hop_cost=cost,
            bandwidth_gb_s=bandwidth,
            latency_us=latency,
            speed=vector(speed, gpus, 1.0),
            memory_gb=None if memory_gb is None else vector(memory_gb, gpus, 0.0),
            slots=None if slots is None else whole(vector(slots, gpus, 0)),
            host_of_gpu=host.astype(np.int64),
            notes=(*notes, *assumed),
        )

    @classmethod
    @checked
    def parse(cls, text: str) -> Topology:
        """Read a shorthand.

        Parameters
        ----------
        text : str
            ``4x8`` (4 nodes of 8 GPUs), ``8+8+4`` (uneven nodes), or a preset with its number of nodes: ``hgx_h100:4``,
            ``gb200_nvl72`` (one).

        Raises
        ------
        InputError
        """
        said = parse_shorthand(text)
        return cls.of(
            said.gpus_per_node,
            name=said.name,
            intra=said.intra,
            inter=said.inter,
            memory_gb=said.memory_gb,
            gpus_per_host=said.gpus_per_host,
        )

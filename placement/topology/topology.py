"""The machine: GPUs, the nodes (NVLink domains) they form, what a hop costs, how much fits and how fast each GPU is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import InputError, Violations

__all__ = ["PRESETS", "Link", "Topology"]

Array = npt.NDArray[np.float64]
MAX_GPUS = 4096
# Speeds, costs and bandwidths are compared with each other: figures further apart than this lose the smaller ones to
# rounding, and their sums and quotients overflow.
SMALLEST, LARGEST = 1e-6, 1e6
SLOWEST, FASTEST = 0.01, 10_000.0  # GB/s: costs that follow from bandwidths stay in the range above
COUNT = r"\d{1,12}"  # in a shorthand: what is more is no size of anything
MATRICES = ("hop_cost", "bandwidth_gb_s", "latency_us")
NUMBERS = (*MATRICES, "speed", "memory_gb")
WHOLE_NUMBERS = ("node_of_gpu", "slots", "host_of_gpu")
RANGES = {"bandwidth_gb_s": (SLOWEST, FASTEST), "latency_us": (0.0, LARGEST)}
POINTERS = {"hop_cost": "/rank_cost_matrix", "speed": "/gpu_speed"}  # fields that a file names differently


@dataclass(frozen=True, kw_only=True)
class Link:
    """A tier of links: bandwidth per GPU and direction in GB/s, latency in microseconds."""

    bandwidth_gb_s: float
    latency_us: float


@dataclass(frozen=True, kw_only=True)
class _Preset:
    gpus_per_node: int
    intra: Link
    inter: Link
    memory_gb: float
    gpus_per_host: int
    text: str


# Nominal figures per GPU and direction, from the vendors' data sheets; measured ones belong into a topology file.
PRESETS: dict[str, _Preset] = {
    "hgx_h100": _Preset(
        gpus_per_node=8,
        intra=Link(bandwidth_gb_s=450, latency_us=2),
        inter=Link(bandwidth_gb_s=50, latency_us=5),
        memory_gb=80,
        gpus_per_host=8,
        text="HGX H100, 8 GPUs, NVLink 4, one 400 Gb/s NIC per GPU",
    ),
    "hgx_h200": _Preset(
        gpus_per_node=8,
        intra=Link(bandwidth_gb_s=450, latency_us=2),
        inter=Link(bandwidth_gb_s=50, latency_us=5),
        memory_gb=141,
        gpus_per_host=8,
        text="HGX H200, 8 GPUs, NVLink 4, one 400 Gb/s NIC per GPU",
    ),
    "h800": _Preset(
        gpus_per_node=8,
        intra=Link(bandwidth_gb_s=200, latency_us=2),
        inter=Link(bandwidth_gb_s=50, latency_us=5),
        memory_gb=80,
        gpus_per_host=8,
        text="H800, 8 GPUs, reduced NVLink, one 400 Gb/s NIC per GPU",
    ),
    "a100": _Preset(
        gpus_per_node=8,
        intra=Link(bandwidth_gb_s=300, latency_us=2),
        inter=Link(bandwidth_gb_s=25, latency_us=6),
        memory_gb=80,
        gpus_per_host=8,
        text="A100, 8 GPUs, NVLink 3, one 200 Gb/s NIC per GPU",
    ),
    "gb200_nvl72": _Preset(
        gpus_per_node=72,
        intra=Link(bandwidth_gb_s=900, latency_us=2),
        inter=Link(bandwidth_gb_s=50, latency_us=5),
        memory_gb=186,
        gpus_per_host=4,
        text="GB200 NVL72, one NVLink domain of 72 GPUs over 18 hosts",
    ),
}
GENERIC = PRESETS["hgx_h100"]


@dataclass(frozen=True, kw_only=True)
class Topology:
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
    """

    name: str
    node_of_gpu: npt.NDArray[np.int64]
    hop_cost: Array
    bandwidth_gb_s: Array | None = None
    latency_us: Array | None = None
    speed: Array
    memory_gb: Array | None = None
    slots: npt.NDArray[np.int64] | None = None
    host_of_gpu: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        self._own_arrays()
        found = Violations()
        gpus = len(self.node_of_gpu)
        if not 1 <= gpus <= MAX_GPUS:
            found.add("num_gpus_range", "/gpus_per_node", f"{gpus} GPUs.", f"Give between 1 and {MAX_GPUS} GPUs.")
        else:
            steps = np.diff(self.node_of_gpu)
            if self.node_of_gpu[0] != 0 or not np.isin(steps, (0, 1)).all():
                detail = "Nodes must be numbered 0, 1, ... along the ranks, each one run of GPUs."
                found.add("node_order", "/node_of_gpu", detail, "Sort the ranks by node.")
            self._check_matrices(found, gpus)
        found.raise_if_any()

    def _own_arrays(self) -> None:
        """Replace the arrays by read-only copies: the caller's own stay writeable, and changes to them stay there."""
        found = Violations()
        for name in (*NUMBERS, *WHOLE_NUMBERS):
            if (value := getattr(self, name)) is None:
                continue
            dtype, kinds = (np.int64, "iu") if name in WHOLE_NUMBERS else (np.float64, "iuf")
            try:
                given = np.asarray(value)
            except ValueError:  # rows of different lengths
                given = np.empty(0, dtype=object)
            if given.dtype.kind not in kinds or (name == "node_of_gpu" and given.ndim != 1):
                what = "whole numbers" if name in WHOLE_NUMBERS else "numbers"
                detail = f"Expected an array of {what}, got shape {given.shape}, dtype {given.dtype}."
                found.add("array_type", POINTERS.get(name, f"/{name}"), detail, "Correct the array.")
                continue
            own = np.array(given, dtype=dtype)
            own.flags.writeable = False
            object.__setattr__(self, name, own)
        found.raise_if_any()

    def _check_matrices(self, found: Violations, gpus: int) -> None:
        for name in MATRICES:
            matrix = getattr(self, name)
            if matrix is None:
                continue
            pointer = POINTERS.get(name, f"/{name}")
            if matrix.shape != (gpus, gpus):
                found.add("matrix_shape", pointer, f"Shape {matrix.shape} is not ({gpus}, {gpus}).", "One row per GPU.")
            elif not np.isfinite(matrix).all() or (matrix < 0).any():
                detail = "Entries must be finite and not negative."
                found.add("matrix_values", pointer, detail, "Use a large cost for a bad link.")
            elif name == "hop_cost" and ((matrix > LARGEST) | ((matrix > 0) & (matrix < SMALLEST))).any():
                detail = f"Entries other than 0 must be {SMALLEST:g} to {LARGEST:g}."
                found.add("matrix_range", pointer, detail, "Costs are relative: scale all of them.")
            elif name == "hop_cost" and matrix.diagonal().any():
                detail = "A GPU reaches itself at cost 0: the diagonal must be 0."
                found.add("matrix_diagonal", pointer, detail, "Set the diagonal to 0.")
            elif name in RANGES:
                least, most = RANGES[name]
                if ((matrix < least) | (matrix > most))[~np.eye(gpus, dtype=bool)].any():
                    detail = f"Entries between GPUs must be {least:g} to {most:g}."
                    found.add("matrix_range", pointer, detail, "Give GB/s per direction, and microseconds.")
        for name, least, most in (
            ("speed", SMALLEST, LARGEST),
            ("memory_gb", 0, LARGEST),
            ("slots", 1, 2**31),
            ("host_of_gpu", 0, MAX_GPUS - 1),
        ):
            vector = getattr(self, name)
            if vector is None:
                continue
            pointer = POINTERS.get(name, f"/{name}")
            if vector.shape != (gpus,):
                found.add("vector_shape", pointer, f"{vector.size} entries for {gpus} GPUs.", "Give one per GPU.")
            elif not ((vector >= least) & (vector <= most)).all():
                found.add("vector_values", pointer, f"Entries must be {least:g} to {most:g}.", "Correct them.")

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
        intra: Link = GENERIC.intra,
        inter: Link | None = None,
        rank_cost_matrix: npt.ArrayLike | None = None,
        speed: npt.ArrayLike | None = None,
        memory_gb: npt.ArrayLike | None = None,
        slots: npt.ArrayLike | None = None,
        gpus_per_host: int | None = None,
    ) -> Topology:
        """Build a two-tier topology, or one with arbitrary costs.

        Parameters
        ----------
        gpus_per_node : tuple of int
            Sizes of the nodes.
        name : str, optional
        intra, inter : Link
            Links within a node and between nodes; the costs follow from the bandwidths. The slowest link costs 1; a
            single node for which `inter` is given keeps the costs that its links have in a cluster.
        rank_cost_matrix : (G, G) float, optional
            Costs that replace those of the links.
        speed, memory_gb, slots : (G,) or scalar, optional
        gpus_per_host : int, optional
            Size of a host where it is smaller than a node: divides the size of every node.
        """
        if not gpus_per_node or any(size < 1 for size in gpus_per_node) or sum(gpus_per_node) > MAX_GPUS:
            raise InputError.of(
                "gpus_per_node",
                "/gpus_per_node",
                f"Node sizes {list(gpus_per_node[:8])}{'...' * (len(gpus_per_node) > 8)} are not valid.",
                f"Every node has at least one GPU, all together at most {MAX_GPUS}.",
            )
        found = Violations()
        between = GENERIC.inter if inter is None else inter
        for pointer, link in (("/intra_node", intra), ("/inter_node", between)):
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
        else:
            bandwidth = np.where(same_node, intra.bandwidth_gb_s, between.bandwidth_gb_s).astype(np.float64)
            latency = np.where(same_gpu, 0.0, np.where(same_node, intra.latency_us, between.latency_us))
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
            speed=_vector(speed, gpus, 1.0),
            memory_gb=None if memory_gb is None else _vector(memory_gb, gpus, 0.0),
            slots=None if slots is None else _whole(_vector(slots, gpus, 0)),
            host_of_gpu=host.astype(np.int64),
        )

    @classmethod
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
        cleaned = text.strip().lower()
        if match := re.fullmatch(rf"({COUNT})x({COUNT})", cleaned):
            nodes, size = int(match[1]), int(match[2])
            _check_size(text, nodes * size)
            return cls.of((size,) * nodes)
        if re.fullmatch(rf"{COUNT}(\+{COUNT})+", cleaned):
            sizes = tuple(int(size) for size in cleaned.split("+"))
            _check_size(text, sum(sizes))
            return cls.of(sizes)
        preset, _, count = cleaned.replace("-", "_").partition(":")
        if preset in PRESETS and re.fullmatch(rf"({COUNT})?", count):
            known, nodes = PRESETS[preset], int(count or 1)
            _check_size(text, nodes * known.gpus_per_node)
            # One scale for all sizes of a preset, as `inter` is given even for a single node.
            return cls.of(
                (known.gpus_per_node,) * nodes,
                name=f"{preset}:{nodes}",
                intra=known.intra,
                inter=known.inter,
                memory_gb=known.memory_gb,
                gpus_per_host=known.gpus_per_host,
            )
        raise InputError.of(
            "topology_syntax",
            "/topology",
            f"Can't read the topology {text[:60]!r}{'...' * (len(text) > 60)}.",
            f"Write NODESxGPUS (4x8), node sizes (8+8+4), PRESET:NODES with a preset of {sorted(PRESETS)}, or a file.",
        )


def _check_size(text: str, gpus: int) -> None:
    """Refuse a shorthand before anything is made from it."""
    if 1 <= gpus <= MAX_GPUS:
        return
    shown = f"{text[:60]}{'...' * (len(text) > 60)}"
    detail = f"{shown!r} has no GPU." if gpus < 1 else f"{shown!r} has {gpus} GPUs; the most are {MAX_GPUS}."
    remedy = f"Name between 1 and {MAX_GPUS} GPUs in all, as in 4x8: 4 nodes of 8."
    raise InputError.of("topology_size", "/topology", detail, remedy)


def _whole(vector: Array) -> npt.NDArray[np.int64]:
    """Return whole numbers as integers; others are refused, not rounded."""
    if not ((np.abs(vector) < 2**31) & (vector == np.floor(vector))).all():
        raise InputError.of("vector_values", "/slots", "Slots must be whole numbers.", "Correct the list.")
    return vector.astype(np.int64)


def _vector(value: Any, gpus: int, default: float) -> Array:
    """Return a scalar or vector as (G,) float64."""
    try:
        array = np.asarray(default if value is None else value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError.of("vector_values", "/gpus", "Expected numbers, one per GPU.", "Correct the list.") from error
    return np.full(gpus, array, dtype=np.float64) if array.ndim == 0 else array.astype(np.float64)

"""The time of an all-to-all: measured curves over what the busiest rank moves, per tier, or a link's data sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from placement.time.bottlenecks import Bottleneck, Way, bottleneck_at, forwarded_copies
from placement.time.experts import FittedError, joined
from placement.time.gpus import Gpu
from traces.model.shape import ModelShape

__all__ = ["CURVE_TERMS", "HIERARCHICAL", "ONE_PER_EXPERT", "Curve", "Exchange", "Way", "curve_terms", "link_exchange"]

Floats = npt.NDArray[np.float64]
HIERARCHICAL: Final = "hierarchical"  # within nodes first, then between ranks of the same index
ONE_PER_EXPERT: Final = ("deepep_low_latency", "deepep_ll", "trtllm_deepep_ll", HIERARCHICAL)  # others merge copies
FIRST_GB: Final = (0.0005, 0.004, 0.03)  # small messages don't fill the links
BEYOND_GB: Final = 0.2
CURVE_TERMS: Final = ("launch", "gb", *(f"first{gb}" for gb in FIRST_GB), f"beyond{BEYOND_GB}")


def curve_terms(gb: npt.ArrayLike) -> Floats:
    """Return the terms of a curve at given volumes, (..., len(CURVE_TERMS)).

    Parameters
    ----------
    gb : (...) numbers
        Gigabytes that the busiest rank sends or receives, the larger of both.
    """
    volume = np.asarray(gb, float)
    parts = [np.ones_like(volume), volume, *(np.minimum(volume, first) for first in FIRST_GB)]
    return np.stack([*parts, np.maximum(volume - BEYOND_GB, 0)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Time of one direction of one back end on one number of nodes.

    Attributes
    ----------
    way : {"dispatch", "combine"}
    nodes, gpus : int
        Of the measurement.
    sms : int
        Streaming multiprocessors that the kernel was given; 0 where it does not take any.
    floor_ms : float
    ms_per : mapping of str to float
        Milliseconds per unit of the terms of `CURVE_TERMS`.
    base_copies : float
        Copies of a token that leave the busiest tier in the measurement: volume per token over the size of one vector.
    vector_bytes : float
        Bytes of each number that travels.
    hidden_size, top_k, num_experts : int
        H, K and E of the measurement.
    error : FittedError
    """

    way: Way
    nodes: int
    gpus: int
    sms: int = 0
    floor_ms: float = 0.0
    ms_per: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    base_copies: float = 1.0
    vector_bytes: float = 2.0
    hidden_size: int = 7168
    top_k: int = 8
    num_experts: int = 256
    error: FittedError

    def ms(self, gb: npt.ArrayLike) -> Floats:
        """Return milliseconds for the gigabytes that the busiest rank moves."""
        weights = np.array([self.ms_per.get(name, 0.0) for name in CURVE_TERMS])
        return joined(self.floor_ms, curve_terms(gb) @ weights)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One back end of the all-to-all on one kind of machine: its curves by direction and number of nodes.

    Attributes
    ----------
    backend : str
        Such as ``deepep_normal`` or ``deepep_low_latency``.
    curves : tuple of Curve
    source : str
        What they were fitted to.
    bottlenecks : tuple of Bottleneck
        What SMs and links take between nodes, where measurements with several numbers of SMs tell them apart.
    measured : bool
        False where a data sheet stands in.
    """

    backend: str
    curves: tuple[Curve, ...]
    source: str
    bottlenecks: tuple[Bottleneck, ...] = ()
    measured: bool = True

    def of(self, way: Way, shape: ModelShape, sms: int = 20) -> tuple[Curve, ...]:
        """Return the curves of one direction, by rising nodes; of several, the one nearest in shape, then in `sms`."""

        def distance(curve: Curve) -> tuple[float, int]:
            sizes = ((curve.hidden_size, shape.hidden_size), (curve.top_k, shape.top_k))
            away = sum(abs(np.log(one / other)) for one, other in sizes)
            return float(away + 0.1 * abs(np.log(curve.num_experts / shape.num_experts))), abs(curve.sms - sms)

        best: dict[int, Curve] = {}
        for curve in self.curves:
            if curve.way == way:
                other = best.get(curve.nodes)
                if other is None or distance(curve) < distance(other):
                    best[curve.nodes] = curve
        return tuple(best[nodes] for nodes in sorted(best))

    def copy_gb(self, way: Way, shape: ModelShape) -> float:
        """Return the gigabytes of a copy of a token in one direction."""
        vector = next(curve.vector_bytes for curve in self.curves if curve.way == way)
        return vector * shape.expert_input / 1e9

    def ms(
        self,
        way: Way,
        nodes: int,
        copies: npt.ArrayLike,
        shape: ModelShape,
        sms: int = 20,
        base: float | None = None,
        forwarded: npt.ArrayLike | None = None,
    ) -> Floats:
        """Return the time of one direction, (...) milliseconds.

        ``T = t0 + a (T_base - t0)``: what the busiest rank moves, over what every rank moves when all are alike, is the
        factor by which the measured volume grows. Where bottlenecks are known, what the slower of SMs and links takes
        is that factor. Between measured numbers of nodes, time is interpolated on log-log axes; beyond them,
        extrapolated from the nearest two.

        Parameters
        ----------
        way : {"dispatch", "combine"}
        nodes : int
            Nodes that the tokens travel between; 1 for the inside of a node.
        copies : (...) numbers
            Copies of tokens that the busiest rank sends or receives in this tier, the larger of both.
        shape : ModelShape
            Each copy is one vector of its hidden size.
        sms : int
            Streaming multiprocessors that the kernels are given.
        base : float, optional
            Copies per token under even routing on so many nodes; interpolated between the measured ones otherwise.
        forwarded : (...) numbers, optional
            Copies that a rank forwards within its node on average, for kernels that merge copies.
        """
        curves = [curve for curve in self.of(way, shape, sms) if (curve.nodes > 1) == (nodes > 1)]
        if not curves:
            return np.full(np.shape(copies), np.nan)
        amount, size = np.asarray(copies, float), shape.expert_input / 1e9
        rates = [each for each in self.bottlenecks if each.way == way]
        if rates and nodes > 1 and forwarded is not None:
            vector = size * curves[0].vector_bytes
            work = bottleneck_at(nodes, rates).ms(sms, np.asarray(forwarded, float) * vector, amount * vector)
            times = [curve.ms(work / _work_per_gb(curve, rates)) for curve in curves]
            return between_nodes(nodes, [curve.nodes for curve in curves], times)
        known = [np.log(curve.nodes) for curve in curves]
        even = base or float(np.interp(np.log(nodes), known, [curve.base_copies for curve in curves]))
        per_expert = self.backend in ONE_PER_EXPERT
        # Without merging of copies, a byte costs the same on any number of nodes; with it, so does a token.
        volumes = [amount if per_expert else amount / even * curve.base_copies for curve in curves]
        times = [curve.ms(volume * size * curve.vector_bytes) for curve, volume in zip(curves, volumes, strict=True)]
        return between_nodes(nodes, [curve.nodes for curve in curves], times)


def _work_per_gb(curve: Curve, rates: list[Bottleneck]) -> float:
    """Return what SMs and links take for each gigabyte between nodes, as they were measured, milliseconds."""
    forwarded = forwarded_copies(curve.top_k, curve.num_experts, curve.nodes, curve.gpus)
    return float(bottleneck_at(curve.nodes, rates).ms(curve.sms, forwarded / curve.base_copies, 1.0))


def between_nodes(nodes: int, known: list[int], times: list[Floats]) -> Floats:
    """Return times for a number of nodes from those for rising known ones, on log-log axes."""
    if len(known) == 1 or nodes in known:
        return times[known.index(nodes)] if nodes in known else times[0]
    pairs = list(pairwise(range(len(known))))
    low, high = next((pair for pair in pairs if nodes < known[pair[1]]), pairs[-1])
    along = np.log(nodes / known[low]) / np.log(known[high] / known[low])
    found: Floats = np.exp(np.log(times[low]) * (1 - along) + np.log(times[high]) * along)
    return found


def link_exchange(gpu: Gpu) -> Exchange:
    """Return an all-to-all at 70 % of the links of a data sheet, for machines on which none was measured."""
    error = FittedError(median=0.3, p90=1.0, left_out="everything", rows=0)
    curves = []
    for way, size in (("dispatch", 1.03), ("combine", 2.0)):
        for nodes, bandwidth, launch in ((1, gpu.nvlink_gb_s, 0.03), (2, gpu.network_gb_s, 0.06)):
            per = MappingProxyType({"launch": launch, "gb": 1e3 / (0.7 * bandwidth)})
            curves.append(
                Curve(
                    way="dispatch" if way == "dispatch" else "combine",
                    nodes=nodes,
                    gpus=8 * nodes,
                    ms_per=per,
                    vector_bytes=size,
                    error=error,
                )
            )
    return Exchange(backend="links", curves=tuple(curves), source=gpu.source, measured=False)

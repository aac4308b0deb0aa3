"""Tables of all-to-alls: volumes of their rows, and the curves that are fitted to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.time.bottlenecks import (
    MOST_GROUPS,
    Bottleneck,
    Way,
    bottleneck_at,
    distinct_places,
    forwarded_copies,
)
from placement.time.calibration.experts import relative_errors
from placement.time.calibration.fitting import Fit, fit
from placement.time.calibration.tables import Columns, Kind, gpu_of
from placement.time.exchange import CURVE_TERMS, ONE_PER_EXPERT, Curve, curve_terms
from placement.time.experts import FittedError, joined

__all__ = ["CurveRows", "base_copies", "curve_rows", "fit_bottlenecks", "fit_curve", "link_rates"]

Floats = npt.NDArray[np.float64]
BYTES = {"bfloat16": 2.0, "fp8": 1.03, "nvfp4": 0.5625, "default": 0.0, "half": 2.0, "int8": 1.0}
DISPATCH_BYTES, COMBINE_BYTES = 1.03, 2.0  # 8-bit numbers with their scales go, 16-bit ones come back
NVLINK = {
    "alltoall_dispatch": "dispatch",
    "alltoall_combine": "combine",
    "alltoall_combine_low_precision": "combine",
}
LEAST_POINTS = 4
LEAST_SMS = 3
TIE = 0.05  # sum of log errors that a limit of links has to save; noise alone saves less
LEFT_OUT = "every other number of tokens"


def base_copies(backend: str, top_k: int, experts: int, nodes: int, gpus: int) -> float:
    """Return the copies of a token that leave its rank (one node) or its node, under the tables' even routing.

    Parameters
    ----------
    backend : str
        Low-latency kernels send one per expert; all others one per distinct GPU or node.
    top_k, experts : int
        K and E.
    nodes, gpus : int
    """
    places = nodes if nodes > 1 else gpus
    if places < 2:
        return 1.0
    if "low_latency" in backend or backend.endswith("_ll"):
        return top_k * (places - 1) / places
    groups = min(nodes, MOST_GROUPS) if nodes > 1 else places
    return max(distinct_places(top_k, experts * groups // places, groups) * (places - 1) / places, 1e-3)


@dataclass(frozen=True, kw_only=True)
class CurveRows:
    """Measurements of one direction of one back end.

    Attributes
    ----------
    gpu, backend : str
    curve : Curve
        Not fitted yet: its direction, nodes and sizes.
    gb, measured : (R,) float64
        Volume of the busiest rank, and milliseconds.
    tokens : (R,) int64
        Per rank; what every other of is left out.
    index : (R,) int64
        Rows of the table.
    """

    gpu: str
    backend: str
    curve: Curve
    gb: Floats
    measured: Floats
    tokens: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]


def curve_rows(columns: Columns, kind: Kind, *, least: int = LEAST_POINTS) -> Iterator[CurveRows]:
    """Yield the measurements of each direction of each back end of a table, of curves with at least so many."""
    found: dict[CurveKey, list[tuple[float, float, int, int, float]]] = {}
    for row in range(len(next(iter(columns.values())))):
        for key, size, ms, tokens, copies in _read(columns, kind, row):
            found.setdefault(key, []).append((size, ms, tokens, row, copies))
    unjudged = FittedError(median=0, p90=0, left_out="", rows=0)
    for (gpu, backend, way, nodes, gpus, sms, vector, shape), points in found.items():
        if len(points) < least:
            continue
        arrays = [np.array(column) for column in zip(*points, strict=True)]
        curve = Curve(
            way=way,
            nodes=nodes,
            gpus=gpus,
            sms=sms,
            base_copies=float(np.median(arrays[4])),
            vector_bytes=vector,
            hidden_size=shape[0],
            top_k=shape[1],
            num_experts=shape[2],
            error=unjudged,
        )
        yield CurveRows(
            gpu=gpu,
            backend=backend,
            curve=curve,
            gb=arrays[0],
            measured=arrays[1],
            tokens=arrays[2].astype(int),
            index=arrays[3],
        )


CurveKey = tuple[str, str, Way, int, int, int, float, tuple[int, int, int]]
Point = tuple[CurveKey, float, float, int, float]


def _read(columns: Columns, kind: Kind, row: int) -> list[Point]:
    """Return the points of a row: what curve they are on, gigabytes, milliseconds, tokens, and copies per token."""

    def cell(name: str, default: Any = 0) -> Any:
        return columns[name][row] if name in columns else default

    gpu, hidden = gpu_of(str(cell("device", "unknown"))), int(cell("hidden_size", 1))
    top_k, experts = int(cell("num_topk", cell("topk", 8))), int(cell("num_experts", 256))
    shape = (hidden, top_k, experts)
    if kind in ("deepep_normal", "deepep_low_latency"):
        nodes, tokens = int(cell("node_num")), int(cell("num_token"))
        copies = base_copies(kind, top_k, experts, nodes, 8 * nodes)
        found: list[Point] = []
        for way, vector in (("dispatch", DISPATCH_BYTES), ("combine", COMBINE_BYTES)):
            us = float(cell(f"{way}_transmit_us", cell(f"{way}_avg_t_us"))) + float(cell(f"{way}_notify_us"))
            curve: CurveKey = (gpu, kind, _way(way), nodes, 8 * nodes, int(cell(f"{way}_sms")), vector, shape)
            found.append((curve, tokens * copies * hidden * vector / 1e9, us / 1e3, tokens, copies))
        return found
    if kind == "moe_a2a":
        way, nodes, gpus = _way(str(cell("phase"))), int(cell("node_num")), int(cell("ep_size"))
        backend, tokens = str(cell("comm_backend")), int(cell("num_tokens"))
        vector = BYTES.get(str(cell("comm_dtype")), 0.0) or (DISPATCH_BYTES if way == "dispatch" else COMBINE_BYTES)
        copies = base_copies(backend, top_k, experts, nodes, gpus)
        key: CurveKey = (gpu, backend, way, nodes, gpus, int(cell("sms")), vector, shape)
        return [(key, tokens * copies * hidden * vector / 1e9, float(cell("latency")) / 1e3, tokens, copies)]
    if kind == "nvlink_alltoall" and str(cell("op_name")) in NVLINK:
        way, gpus, tokens = _way(NVLINK[str(cell("op_name"))]), int(cell("moe_ep_size")), int(cell("num_tokens"))
        name = str(cell("kernel_source")).replace("NVLink", "nvlink_").replace("Sided", "_sided").lower()
        low = str(cell("op_name")).endswith("low_precision")
        vector = BYTES.get(str(cell("moe_dtype")), 2.0)
        vector = vector if way == "dispatch" else (1.03 if low else 2.0)
        backend = f"{name}_{cell('moe_dtype')}{'_low' if low else ''}"
        copies = base_copies("gpu", top_k, experts, 1, gpus)
        key = (gpu, backend, way, 1, gpus, 0, vector, shape)
        return [(key, tokens * copies * hidden * vector / 1e9, float(cell("latency")), tokens, copies)]
    if kind == "collective":
        vector = BYTES.get(str(cell("nccl_dtype")), 2.0)
        numbers, gpus = int(cell("message_size")), int(cell("num_gpus"))
        key = (gpu, f"nccl_{cell('op_name')}", "dispatch", 1, gpus, 0, vector, shape)
        return [(key, numbers * vector / 1e9, float(cell("latency")), numbers, 1.0)]
    return []


def _way(text: str) -> Way:
    return "dispatch" if text == "dispatch" else "combine"


def fit_curve(rows: CurveRows) -> Curve:
    """Fit a curve, and judge a fit to every other number of tokens by the others."""
    terms = curve_terms(rows.gb)
    counts = np.unique(rows.tokens)
    seen = np.isin(rows.tokens, counts[::2])
    if len(counts) > 3 and seen.sum() > 3:
        level, coefficients = _fit(terms[seen], rows.measured[seen])
        predicted = joined(level, terms[~seen] @ coefficients)
        median, p90 = relative_errors(predicted, rows.measured[~seen])
        error = FittedError(median=median, p90=p90, left_out=LEFT_OUT, rows=int((~seen).sum()))
    else:
        error = FittedError(median=0.0, p90=0.0, left_out="nothing", rows=0)
    level, coefficients = _fit(terms, rows.measured)
    per = {n: float(f"{v:.4g}") for n, v in zip(CURVE_TERMS, coefficients.tolist(), strict=True) if v > 0}
    return replace(rows.curve, floor_ms=float(f"{level:.4g}"), ms_per=MappingProxyType(per), error=error)


def _fit(terms: Floats, measured: Floats) -> Fit:
    """Fit what varies in the rows there are."""
    kept = (terms > 0).any(axis=0)
    level, some = fit(terms[:, kept], measured, floor=len(measured) >= 12)
    coefficients = np.zeros(terms.shape[1])
    coefficients[kept] = some
    return level, coefficients


def link_rates(parts: Iterable[CurveRows]) -> dict[int, float]:
    """Return milliseconds per gigabyte of the links between so many nodes, by back ends that leave nothing to SMs.

    Kernels that send a copy per expert put it on the network at once: what they take per byte is what links take. The
    faster direction tells it.

    Parameters
    ----------
    parts : iterable of CurveRows
        Of all back ends of one network.
    """
    found: dict[int, list[float]] = {}
    for rows in parts:
        if rows.backend in ONE_PER_EXPERT and rows.curve.nodes > 1:
            per_token = rows.curve.base_copies * rows.curve.hidden_size * rows.curve.vector_bytes / 1e9
            found.setdefault(rows.curve.nodes, []).append(_ms_per_token(rows) / per_token)
    return {nodes: float(f"{min(rates):.4g}") for nodes, rates in found.items()}


def fit_bottlenecks(parts: Iterable[CurveRows], links: Mapping[int, float]) -> tuple[Bottleneck, ...]:
    """Tell what SMs and links take between nodes, of one back end, from measurements with several numbers of SMs.

    Per direction and number of nodes, milliseconds per token over a number of SMs are the larger of ``a / SMs`` and
    ``b``, with the least sum of absolute log errors. Kernels that send a copy per expert forward nothing.

    Parameters
    ----------
    parts : iterable of CurveRows
    links : mapping of int to float
        Of `link_rates`: where more SMs were always faster, links were never seen to hold anything up; and of numbers
        of nodes that were not measured.
    """
    found: dict[tuple[Way, int], dict[int, CurveRows]] = {}
    for rows in parts:
        if rows.curve.nodes > 1 and rows.curve.sms and rows.backend not in ONE_PER_EXPERT:
            found.setdefault((rows.curve.way, rows.curve.nodes), {})[rows.curve.sms] = rows
    known = []
    for (way, nodes), by_sms in sorted(found.items()):
        if len(by_sms) < LEAST_SMS:
            continue
        sms = np.array(list(by_sms), float)
        slopes = np.array([_ms_per_token(rows) for rows in by_sms.values()])
        curve = next(iter(by_sms.values())).curve
        forwarding, link = min(
            ((a, b) for a in slopes * sms for b in (0.0, *slopes)),
            key=lambda pair: np.abs(np.log(np.maximum(pair[0] / sms, pair[1]) / slopes)).sum() + (pair[1] > 0) * TIE,
        )
        vector = curve.hidden_size * curve.vector_bytes / 1e9
        forwarded = forwarded_copies(curve.top_k, curve.num_experts, nodes, curve.gpus)
        known.append(
            Bottleneck(
                way=way,
                nodes=nodes,
                sm_ms_per_gb=float(f"{forwarding / (forwarded * vector):.4g}"),
                link_ms_per_gb=float(f"{link / (curve.base_copies * vector) or links.get(nodes, 0.0):.4g}"),
            )
        )
    for way in sorted({each.way for each in known}):
        mine = [each for each in known if each.way == way]
        there = {each.nodes for each in mine}
        known += [replace(bottleneck_at(n, mine), link_ms_per_gb=links[n]) for n in sorted(links) if n not in there]
    return tuple(known)


def _ms_per_token(rows: CurveRows) -> float:
    """Return the slope of the upper half of the numbers of tokens, where start-up no longer counts."""
    upper = np.argsort(rows.tokens)[len(rows.tokens) // 2 :]
    first, rest = upper[0], upper[1:]
    slopes = (rows.measured[rest] - rows.measured[first]) / (rows.tokens[rest] - rows.tokens[first])
    return float(np.median(slopes))

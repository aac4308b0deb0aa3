"""The coefficients that ship with the package, a small file per GPU, and which of them answers a question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from placement.time.bottlenecks import Bottleneck
from placement.time.exchange import CURVE_TERMS, HIERARCHICAL, Curve, Exchange, link_exchange
from placement.time.experts import ExpertKernel, FittedError, roofline
from placement.time.gpus import GPUS, Gpu
from traces import InputError

__all__ = [
    "Coefficients",
    "coefficients_of",
    "exchange_for",
    "from_json",
    "kernel_for",
    "kernel_named",
    "known_backends",
    "measured_gpus",
    "read_coefficients",
    "to_json",
]

SAME_CHIP = {"h800": "h100"}  # other links, the same compute
WIDE = ("sglang_deepep", "tensorrt_llm_wideep")  # expert parallel kernels, measured for it
BOTTLENECK_FIELDS = ("way", "nodes", "sm_ms_per_gb", "link_ms_per_gb")
CURVE_FIELDS = ("way", "nodes", "gpus", "sms", "hidden_size", "top_k", "num_experts", "base_copies", "vector_bytes")


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What is known of one GPU.

    Attributes
    ----------
    gpu : str
    source : mapping of str to str
        Package, version and licence of the measurements, and when they were fitted.
    kernels : tuple of ExpertKernel
    exchanges : tuple of Exchange
    """

    gpu: str
    source: Mapping[str, str]
    kernels: tuple[ExpertKernel, ...]
    exchanges: tuple[Exchange, ...]


def to_json(found: Coefficients) -> str:
    """Return the text of a coefficient file: a line per kernel and curve, so that changes can be reviewed."""
    kernels = [
        {
            "name": kernel.name,
            "phase": kernel.phase,
            "dtype": kernel.dtype,
            "floor_ms": kernel.floor_ms,
            "ms_per": dict(kernel.ms_per),
            "tactics": dict(kernel.tactics),
            "error": _error(kernel.error),
            "source": kernel.source,
        }
        for kernel in found.kernels
    ]
    lines = ["{", f' "gpu": {json.dumps(found.gpu)},', f' "source": {json.dumps(dict(found.source))},', ' "kernels": [']
    lines += [",\n".join("  " + json.dumps(kernel) for kernel in kernels), " ],", ' "exchanges": [']
    blocks = []
    for exchange in found.exchanges:
        head = f'  {{"backend": {json.dumps(exchange.backend)}, "source": {json.dumps(exchange.source)}, "curves": [\n'
        rows = [
            json.dumps(
                [
                    *(getattr(curve, name) for name in CURVE_FIELDS),
                    curve.floor_ms,
                    [curve.ms_per.get(term, 0) for term in CURVE_TERMS],
                    _error(curve.error),
                ]
            )
            for curve in exchange.curves
        ]
        limits = [[getattr(each, name) for name in BOTTLENECK_FIELDS] for each in exchange.bottlenecks]
        tail = f',\n   "bottlenecks": {json.dumps(limits)}}}' if limits else "}"
        blocks.append(head + ",\n".join("   " + row for row in rows) + "]" + tail)
    return "\n".join([*lines, ",\n".join(blocks), " ]", "}"]) + "\n"


def _error(error: FittedError) -> list[Any]:
    return [error.median, error.p90, error.rows, error.left_out]


def from_json(text: str, place: str) -> Coefficients:
    """Read a coefficient file.

    Raises
    ------
    InputError
        If it is not one of this version.
    """
    try:
        content = json.loads(text)
        kernels = tuple(
            ExpertKernel(
                gpu=content["gpu"],
                name=entry["name"],
                phase=entry["phase"],
                dtype=entry["dtype"],
                floor_ms=float(entry["floor_ms"]),
                ms_per=MappingProxyType({name: float(value) for name, value in entry["ms_per"].items()}),
                tactics=MappingProxyType({name: float(value) for name, value in entry["tactics"].items()}),
                error=_as_error(entry["error"]),
                source=entry["source"],
            )
            for entry in content["kernels"]
        )
        exchanges = tuple(
            Exchange(
                backend=entry["backend"],
                source=entry["source"],
                curves=tuple(_as_curve(row) for row in entry["curves"]),
                bottlenecks=tuple(
                    Bottleneck(**dict(zip(BOTTLENECK_FIELDS, row, strict=True))) for row in entry.get("bottlenecks", [])
                ),
            )
            for entry in content["exchanges"]
        )
        return Coefficients(
            gpu=content["gpu"], source=MappingProxyType(content["source"]), kernels=kernels, exchanges=exchanges
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        detail = f"This is no coefficient file of this version: {type(error).__name__} {error}"
        remedy = "Write one with moe-placement calibrate."
        raise InputError.of("no_coefficients", place, detail[:200], remedy) from None


def _as_error(values: Any) -> FittedError:
    median, p90, rows, left_out = values
    return FittedError(median=float(median), p90=float(p90), rows=int(rows), left_out=str(left_out))


def _as_curve(row: Any) -> Curve:
    sizes = dict(zip(CURVE_FIELDS, row, strict=False))
    floor, terms, error = row[len(CURVE_FIELDS) :]
    per = {name: float(value) for name, value in zip(CURVE_TERMS, terms, strict=True) if value}
    return Curve(floor_ms=float(floor), ms_per=MappingProxyType(per), error=_as_error(error), **sizes)


def read_coefficients(path: str | Path) -> Coefficients:
    """Read a coefficient file that a user wrote with ``moe-placement calibrate``."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.of("unreadable", str(path), str(error)[:160], "Name a coefficient file.") from None
    return from_json(text, str(path))


@cache
def coefficients_of(gpu: str) -> Coefficients | None:
    """Return the coefficients of a GPU that ship with the package; None where none do."""
    file = files("placement.time").joinpath("coefficients", f"{gpu}.json")
    if not file.is_file():
        return None
    return from_json(file.read_text(encoding="utf-8"), f"{gpu}.json")


def kernel_for(
    gpu: Gpu, phase: str, dtype: str, *, framework: str | None = None, own: Coefficients | None = None
) -> ExpertKernel:
    """Return the model of the expert kernels that is nearest to what is asked; a roofline where nothing was measured.

    Parameters
    ----------
    gpu : Gpu
    phase : {"prefill", "decode"}
    dtype : str
        How the experts are stored. Kernels of another type are never taken for it.
    framework : str, optional
        ``sglang``, ``tensorrt-llm`` or ``vllm``: its kernels go before others.
    own : Coefficients, optional
        Of one's own measurements; they go before those that ship.
    """
    shipped = coefficients_of(SAME_CHIP.get(gpu.name, gpu.name))
    known = [kernel for part in (own, shipped) if part is not None and _fits(part, gpu) for kernel in part.kernels]
    fitting = [kernel for kernel in known if kernel.dtype == dtype and kernel.phase in (phase, "any")]
    if not fitting:
        return roofline(gpu, dtype, phase)
    wanted = (framework or "").replace("-", "_").replace("tensorrt_llm", "trtllm")

    def rank(kernel: ExpertKernel) -> tuple[int, int, int, float]:
        name = kernel.name.replace("tensorrt_llm", "trtllm").replace("moe_torch_flow", "trtllm")
        mine = own is not None and kernel in own.kernels
        same = bool(wanted) and name.startswith(wanted)
        return -mine, -same, -(kernel.name in WIDE) - (kernel.phase == phase), kernel.error.median

    return min(fitting, key=rank)


def kernel_named(
    gpu: Gpu, name: str, phase: str, dtype: str, *, own: Coefficients | None = None
) -> ExpertKernel | None:
    """Return the model of one kernel; None where it was not measured on this GPU."""
    for part in (own, coefficients_of(gpu.name)):
        for kernel in part.kernels if part is not None and _fits(part, gpu) else ():
            if (kernel.name, kernel.phase, kernel.dtype) == (name, phase, dtype):
                return kernel
    return None


def _fits(part: Coefficients, gpu: Gpu) -> bool:
    return part.gpu in (gpu.name, SAME_CHIP.get(gpu.name))


def exchange_for(gpu: Gpu, backend: str, *, own: Coefficients | None = None) -> Exchange:
    """Return the curves of a back end of the all-to-all; those of the data sheet where none were measured.

    Parameters
    ----------
    gpu : Gpu
    backend : str
        A name in the coefficient files, ``links``, or ``hierarchical``: the data sheet in two stages.
    own : Coefficients, optional
        Of one's own measurements.
    """
    if backend == HIERARCHICAL:
        return replace(link_exchange(gpu), backend=HIERARCHICAL)
    for part in (own, coefficients_of(gpu.name)):
        for exchange in part.exchanges if part is not None and _fits(part, gpu) else ():
            if exchange.backend == backend:
                return exchange
    return link_exchange(gpu)


@cache
def known_backends() -> tuple[str, ...]:
    """Return the back ends that were measured on some GPU, and those of a data sheet: ``hierarchical``, ``links``."""
    parts = [coefficients_of(name) for name in GPUS]
    return (*sorted({e.backend for part in parts if part is not None for e in part.exchanges}), HIERARCHICAL, "links")


def measured_gpus() -> tuple[str, ...]:
    """Return the GPUs whose kernels were measured."""
    return tuple(name for name in GPUS if coefficients_of(name) is not None)

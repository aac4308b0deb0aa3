"""Judging coefficients by tables of measurements, by GPU and phase."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.time.bottlenecks import forwarded_copies
from placement.time.calibration.exchanges import CurveRows, curve_rows
from placement.time.calibration.experts import MAX_ROWS, expert_rows, relative_errors
from placement.time.calibration.tables import Kind, kind_of, read_table
from placement.time.catalogue import Coefficients, exchange_for, kernel_for, kernel_named
from placement.time.exchange import Curve, Exchange
from placement.time.gpus import GPUS, Gpu
from traces import InputError
from traces.model.shape import ModelShape

__all__ = ["Judged", "between", "check_tables"]

Floats = npt.NDArray[np.float64]
UNJUDGED = {
    True: "their distribution is not known (uniform, balanced, power_law_1.2, ...), or their slots don't divide",
    False: "nothing is known of such an exchange, between so many GPUs or nodes",
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How far the coefficients are from measurements of one kernel, or of one direction of an exchange.

    Attributes
    ----------
    gpu, phase : str
        ``prefill``, ``decode`` or ``any`` of experts; ``dispatch`` or ``combine`` of exchanges.
    kernel : str
        Kernel or back end of the table.
    judged_by : str
        Kernel or back end of the coefficients; ``roofline`` or ``links`` where the GPU has none.
    dtype : str
        Of the experts; empty for exchanges.
    rows : int
        Measurements judged.
    skipped : int
        Measurements left out: beyond the limit, or of a distribution that is not known.
    median, p90 : float
        Of the relative error.
    held_out_median, held_out_p90 : float or None
        What was found when the coefficients were fitted, on what the fits had not seen; None where nothing was fitted,
        as between measured numbers of nodes.
    tables : tuple of str
    """

    gpu: str
    phase: str
    kernel: str
    judged_by: str
    dtype: str
    rows: int
    skipped: int
    median: float
    p90: float
    held_out_median: float | None
    held_out_p90: float | None
    tables: tuple[str, ...]


Part = tuple[tuple[str, str, str, str, str], Floats, Floats, int, tuple[float, float] | None, str]


def check_tables(
    paths: Iterable[str | Path], *, own: Coefficients | None = None, limit: int = MAX_ROWS
) -> tuple[Judged, ...]:
    """Compare tables with what the coefficients predict for their rows.

    Parameters
    ----------
    paths : iterable of paths
        Parquet or CSV, of the schemas in docs/time.md.
    own : Coefficients, optional
        Judged in place of those that ship, where they are for the table's GPU.
    limit : int
        Most rows per kernel and table.

    Raises
    ------
    InputError
        If a file is no such table, names a GPU that is not known, or has no row that can be judged.
    """
    found: dict[tuple[str, str, str, str, str], list[Part]] = {}
    for path in paths:
        name = str(path)
        columns = read_table(path)
        kind = kind_of(columns, name)
        parts = _experts(columns, name, own, limit) if kind == "experts" else _exchanges(columns, kind, name, own)
        there = list(parts)
        if not there:
            raise InputError.of(
                "nothing_judged",
                name,
                f"Of {len(next(iter(columns.values())))} row(s) none can be judged: {UNJUDGED[kind == 'experts']}.",
                "Give rows that can be.",
            )
        for part in there:
            found.setdefault(part[0], []).append(part)
    return tuple(_joined(parts) for _, parts in sorted(found.items()))


def _joined(parts: list[Part]) -> Judged:
    gpu, phase, kernel, judged_by, dtype = parts[0][0]
    held = [part[4] for part in parts if part[4] is not None]
    median, p90 = relative_errors(np.concatenate([part[1] for part in parts]), np.concatenate([p[2] for p in parts]))
    return Judged(
        gpu=gpu,
        phase=phase,
        kernel=kernel,
        judged_by=judged_by,
        dtype=dtype,
        rows=sum(len(part[1]) for part in parts),
        skipped=sum(part[3] for part in parts),
        median=median,
        p90=p90,
        held_out_median=float(np.median([one[0] for one in held])) if held else None,
        held_out_p90=float(np.median([one[1] for one in held])) if held else None,
        tables=tuple(dict.fromkeys(part[5] for part in parts)),
    )


def _known(gpu: str, place: str) -> Gpu:
    if gpu not in GPUS:
        remedy = f"Known are {', '.join(GPUS)}: the column `device` has one of these names in it."
        raise InputError.of("unknown_gpu", f"{place}#/device", f"The table is of {gpu!r:.60}.", remedy)
    return GPUS[gpu]


def _experts(columns: Any, name: str, own: Coefficients | None, limit: int) -> Iterator[Part]:
    for rows in expert_rows(columns, name, limit):
        gpu, kernel, phase, dtype = rows.key
        device = _known(gpu, name)
        model = kernel_named(device, kernel, phase, dtype, own=own)
        if model is None:
            framework = kernel.partition("_")[0]
            model = kernel_for(device, phase if phase != "any" else "prefill", dtype, framework=framework, own=own)
        held = (model.error.median, model.error.p90)
        key = (gpu, phase, kernel, model.name, dtype)
        factors = np.array([model.tactics.get(str(config), 1.0) for config in rows.config])
        yield key, factors * model.ms_of(rows.terms), rows.measured, rows.skipped, held, name


def _exchanges(columns: Any, kind: Kind, name: str, own: Coefficients | None) -> Iterator[Part]:
    for rows in curve_rows(columns, kind, least=1):
        exchange = exchange_for(_known(rows.gpu, name), rows.backend, own=own)
        curve = _nearest(exchange, rows)
        if curve is None:
            predicted = between(exchange, rows)
            if predicted is None:
                continue
            held = None
        else:
            predicted = curve.ms(rows.gb)
            held = (curve.error.median, curve.error.p90) if curve.error.left_out != "nothing" else None
        key = (rows.gpu, rows.curve.way, rows.backend, exchange.backend, "")
        yield key, predicted, rows.measured, 0, held, name


def _nearest(exchange: Exchange, rows: CurveRows) -> Curve | None:
    """Return the curve of the same direction, nodes and GPUs whose sizes are nearest; None without one."""
    wanted = rows.curve
    there = [c for c in exchange.curves if (c.way, c.nodes, c.gpus) == (wanted.way, wanted.nodes, wanted.gpus)]

    def distance(curve: Curve) -> float:
        pairs = [(curve.hidden_size, wanted.hidden_size), (curve.top_k, wanted.top_k)]
        pairs += [(curve.num_experts, wanted.num_experts), (curve.sms + 1, wanted.sms + 1)]
        return float(sum(abs(np.log(one / other)) for one, other in pairs)) + abs(
            curve.vector_bytes - wanted.vector_bytes
        )

    return min(there, key=distance) if there else None


def between(exchange: Exchange, rows: CurveRows) -> Floats | None:
    """Return predictions for a number of nodes that was not measured; None where there are no curves to go by."""
    wanted = rows.curve
    shape = ModelShape(
        hidden_size=wanted.hidden_size,
        expert_input=wanted.hidden_size,
        intermediate_size=1,
        num_experts=wanted.num_experts,
        top_k=wanted.top_k,
    )
    copies = rows.gb * 1e9 / (wanted.hidden_size * wanted.vector_bytes)
    base = wanted.base_copies
    forwarded = None
    if wanted.nodes > 1:
        each = forwarded_copies(wanted.top_k, wanted.num_experts, wanted.nodes, wanted.gpus)
        forwarded = copies * each / base
    predicted = exchange.ms(wanted.way, wanted.nodes, copies, shape, wanted.sms, base=base, forwarded=forwarded)
    return None if np.isnan(predicted).any() else predicted

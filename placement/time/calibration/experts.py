"""Tables of expert kernels: the features of their rows, and the kernels that are fitted to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.time.calibration.distributions import Workload, histograms, rule_of
from placement.time.calibration.fitting import fit
from placement.time.calibration.tables import DTYPES, Columns, gpu_of
from placement.time.experts import ExpertKernel, FittedError, config_of, joined
from placement.time.features import FEATURES, features, units
from traces import InputError
from traces.model.shape import ModelShape

__all__ = ["ExpertRows", "Key", "expert_rows", "fit_experts", "held_out", "relative_errors"]

Floats = npt.NDArray[np.float64]
Key = tuple[str, str, str, str]  # GPU, kernel, phase, dtype
MAX_ROWS = 6_000
PHASES = {"moe_context": "prefill", "moe_generation": "decode", "context": "prefill", "generation": "decode"}
WIDE = {"deepepmoe": "sglang_deepep", "wideep_compute_cutlass": "tensorrt_llm_wideep"}
NO_GATE = "nongated"  # ends the names of kernels for experts of two matrices
ALIKE = 1.02
LEAST_CONFIG, LEAST_FACTOR = 12, 0.05  # rows, and log error, from which on a configuration has a factor
FEW_SHAPES, FOLDS = 4, 8
LEFT_OUT = "whole (EP size, distribution) pairs"


@dataclass(frozen=True, kw_only=True)
class ExpertRows:
    """Measurements of one kernel.

    Attributes
    ----------
    key : Key
        GPU, kernel, phase and dtype.
    terms : (R, len(FEATURES)) float64
    measured : (R,) float64
        Milliseconds.
    group : (R,) int64
        Number of the (EP size, distribution) pair.
    shapes : int
        How many shapes of experts there are.
    config : (R,) str
        Shape and slots of each row, as `placement.time.experts.config_of` names them.
    index : (R,) int64
        Rows of the table.
    skipped : int
        Rows that were left out to keep the fit quick, or whose distribution is not known.
    """

    key: Key
    terms: Floats
    measured: Floats
    group: npt.NDArray[np.int64]
    shapes: int
    config: npt.NDArray[np.str_]
    index: npt.NDArray[np.int64]
    skipped: int


def _text(columns: Columns, name: str, row: int, default: str = "") -> str:
    return str(columns[name][row]) if name in columns else default


def _keys(columns: Columns, place: str) -> dict[Key, list[int]]:
    """Return the rows of each kernel."""
    found: dict[Key, list[int]] = {}
    for row in range(len(columns["latency"])):
        said = _text(columns, "moe_dtype", row, "bfloat16")
        dtype = DTYPES.get(said)
        if dtype is None:
            detail, remedy = f"Row {row} has {said!r:.40}.", f"Known are {', '.join(DTYPES)}. Leave out other rows."
            raise InputError.of("unknown_dtype", f"{place}#/moe_dtype", detail, remedy)
        source = _text(columns, "kernel_source", row, "measured")
        phase = PHASES.get(_text(columns, "inference_phase", row), PHASES.get(_text(columns, "op_name", row), "any"))
        phase = _text(columns, "phase", row, phase)
        key = (gpu_of(_text(columns, "device", row, "unknown")), WIDE.get(source, source), phase, dtype)
        found.setdefault(key, []).append(row)
    return found


def expert_rows(columns: Columns, place: str, limit: int = MAX_ROWS) -> Iterator[ExpertRows]:
    """Yield the measurements of each kernel of a table, at most `limit` of each, evenly drawn.

    Raises
    ------
    InputError
        If a dtype is not known, or the tokens of experts are no list of numbers.
    """
    for key, rows in _keys(columns, place).items():
        chosen = np.array(rows)
        if len(chosen) > limit:
            chosen = np.sort(np.random.default_rng(0).choice(chosen, limit, replace=False))
        terms, kept, pairs, shapes, configs = [], [], [], set(), []
        for row in chosen.tolist():
            mean = _terms(columns, row, key, place)
            if mean is None:
                continue
            terms.append(mean)
            kept.append(row)
            pairs.append(f"{columns['moe_ep_size'][row]} {_text(columns, 'distribution', row)}")
            shapes.add((int(columns["hidden_size"][row]), int(columns["inter_size"][row])))
            configs.append(_config(columns, row))
        if kept:
            yield ExpertRows(
                key=key,
                terms=np.array(terms),
                measured=columns["latency"][kept].astype(float),
                group=np.unique(pairs, return_inverse=True)[1].astype(np.int64),
                shapes=len(shapes),
                config=np.array(configs),
                index=np.array(kept),
                skipped=len(rows) - len(kept),
            )


def _config(columns: Columns, row: int) -> str:
    slots = int(columns["num_slots" if "num_slots" in columns else "num_experts"][row])
    parallel = int(columns["moe_tp_size"][row]) if "moe_tp_size" in columns else 1
    hidden, width = int(columns["hidden_size"][row]), int(columns["inter_size"][row])
    return config_of(hidden, width // parallel, slots // int(columns["moe_ep_size"][row]))


def _terms(columns: Columns, row: int, key: Key, place: str) -> Floats | None:
    """Return the mean features of a row over the draws of its distribution; None where that is not known."""
    number = {name: int(columns[name][row]) for name in ("num_tokens", "topk", "num_experts", "moe_ep_size")}
    slots = int(columns["num_slots"][row]) if "num_slots" in columns else number["num_experts"]
    gpu, name, phase, dtype = key
    shape = ModelShape(
        hidden_size=int(columns["hidden_size"][row]),
        expert_input=int(columns["hidden_size"][row]),
        intermediate_size=int(columns["inter_size"][row]),
        num_experts=number["num_experts"],
        top_k=number["topk"],
        weight_dtype=dtype,
    )
    parallel = int(columns["moe_tp_size"][row]) if "moe_tp_size" in columns else 1
    unit = units(shape, dtype, parallel, matrices=2 if name.endswith(NO_GATE) else 3)
    if "tokens_per_expert" in columns:
        listed = _listed(columns, row, place)
        distinct = columns["rows"][row] if "rows" in columns else min(listed.sum(), number["num_tokens"])
        return features(listed, float(distinct), unit)
    if slots % number["moe_ep_size"]:
        return None
    distribution = _text(columns, "distribution", row, "uniform")
    workload = Workload(
        distribution=distribution,
        tokens=number["num_tokens"],
        experts=number["num_experts"],
        top_k=number["topk"],
        ranks=number["moe_ep_size"],
        slots=slots,
        rule=rule_of(_text(columns, "framework", row), _text(columns, "version", row), gpu),
        decode=phase == "decode",
    )
    received = int(columns["rank0_num_tokens"][row]) if "rank0_num_tokens" in columns else None
    wide = name == "sglang_deepep"
    drawn = histograms(workload, received)
    if drawn is None:
        return None
    counts, rows = drawn
    if wide:
        rows = np.full(len(counts), number["num_tokens"] * (phase == "prefill"))
    if not wide and received is None and not name.startswith("sglang"):
        rows = np.full(len(counts), number["num_tokens"])  # every token is routed, and those of others dropped
    packed = wide and phase == "prefill" and distribution == "uniform"
    mean: Floats = features(counts, rows, unit, packed=packed).mean(axis=0)
    return mean


def _listed(columns: Columns, row: int, place: str) -> npt.NDArray[np.int64]:
    text = str(columns["tokens_per_expert"][row])
    parts = text.replace(";", " ").split()
    if not parts or not all(part.isdecimal() for part in parts):
        detail = f"Row {row} has {text!r:.40}."
        remedy = "List the tokens of each expert of the rank, such as '12 0 3'."
        raise InputError.of("tokens_per_expert", f"{place}#/tokens_per_expert", detail, remedy)
    return np.array(parts, np.int64)


def usable(rows: ExpertRows) -> npt.NDArray[np.bool_]:
    """Return which features a table can tell apart, (len(FEATURES),)."""
    names = list(FEATURES)
    kept = np.ones(len(names), bool)
    if rows.shapes == 1:  # what one shape can't tell from its twin keeps its physical unit
        for name in ("active", "pair_gb"):
            kept[names.index(name)] = False
    kept &= (rows.terms > 0).any(axis=0)
    for one, other in combinations(np.flatnonzero(kept).tolist(), 2):  # of two that tell the same, the first
        if kept[one] and kept[other]:
            ratio = rows.terms[:, other] / np.where(rows.terms[:, one] > 0, rows.terms[:, one], np.nan)
            low, high = np.nanquantile(ratio, (0.02, 0.98))
            kept[other] = not (np.isfinite(ratio).all() and high < ALIKE * low)
    return kept


def fit_experts(rows: ExpertRows, source: str, *, judge: bool = True, gpu: str | None = None) -> ExpertKernel:
    """Fit a kernel, and judge it by what each fit has not seen.

    Parameters
    ----------
    rows : ExpertRows
    source : str
        Of the table.
    judge : bool
        Whether to leave out each (EP size, distribution) pair in turn.
    gpu : str, optional
        Name of the GPU, where the table's own is not to be used.
    """
    device, name, phase, dtype = rows.key
    kept = usable(rows)
    terms = rows.terms[:, kept]
    (level, coefficients), tactics = _fitted(terms, rows.measured, rows.config)
    parts = len(np.unique(_folds(rows)))
    if judge and parts > 1:
        median, p90 = relative_errors(held_out(rows), rows.measured)
        folds = "" if parts == len(np.unique(rows.group)) else f", in {FOLDS} parts"
        error = FittedError(median=median, p90=p90, left_out=LEFT_OUT + folds, rows=len(rows.measured))
    else:
        predicted = joined(level, terms @ coefficients) * _factors(tactics, rows.config)
        median, p90 = relative_errors(predicted, rows.measured)
        error = FittedError(median=median, p90=p90, left_out="nothing", rows=len(rows.measured))
    found = {
        feature: float(f"{value:.4g}")
        for feature, value in zip(np.array(FEATURES)[kept].tolist(), coefficients.tolist(), strict=True)
        if value > 0
    }
    return ExpertKernel(
        gpu=gpu or device,
        name=name,
        phase=phase,
        dtype=dtype,
        floor_ms=float(f"{level:.4g}"),
        ms_per=MappingProxyType(found),
        tactics=MappingProxyType(tactics),
        error=error,
        source=source,
    )


def held_out(rows: ExpertRows) -> Floats:
    """Return predictions of every row by a fit that has seen no row of its (EP size, distribution) pair, (R,) ms."""
    terms, groups = rows.terms[:, usable(rows)], _folds(rows)
    predicted = np.empty(len(rows.measured))
    for group in np.unique(groups):
        out = groups == group
        (floor, some), learned = _fitted(terms[~out], rows.measured[~out], rows.config[~out])
        predicted[out] = joined(floor, terms[out] @ some) * _factors(learned, rows.config[out])
    return predicted


def _fitted(
    terms: Floats, measured: Floats, config: npt.NDArray[np.str_]
) -> tuple[tuple[float, Floats], dict[str, float]]:
    """Return a fit, and the factors of configurations that are far from it for all their rows."""
    found = fit(terms, measured)
    residual = np.log(measured / joined(found[0], terms @ found[1]))
    factors = {}
    for name in np.unique(config):
        own = residual[config == name]
        middle = float(np.median(own))
        if len(own) >= LEAST_CONFIG and abs(middle) > LEAST_FACTOR:
            factors[str(name)] = float(f"{np.exp(middle):.4g}")
    return found, factors


def _factors(tactics: Mapping[str, float], config: npt.NDArray[np.str_]) -> Floats:
    return np.array([tactics.get(str(name), 1.0) for name in config])


def _folds(rows: ExpertRows) -> npt.NDArray[np.int64]:
    """Return which rows are left out together: each pair alone, or in a few parts where the table has many shapes."""
    return rows.group if rows.shapes <= FEW_SHAPES else rows.group % FOLDS


def relative_errors(predicted: Any, measured: Any) -> tuple[float, float]:
    """Return the median and the 90th percentile of the relative error."""
    errors = np.abs(np.asarray(predicted) / np.asarray(measured) - 1)
    return float(f"{np.median(errors):.4f}"), float(f"{np.quantile(errors, 0.9):.4f}")

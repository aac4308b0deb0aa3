"""The time model against the tables that it is fitted to, all held out: needs the extra `calibrate`.

Prints, per GPU: errors of expert kernels when whole (EP size, distribution) pairs are left out; skewed over uniform
time; whether the sign of `_eplb` is right; all-to-all fitted on every other number of tokens; and numbers of nodes that
no fit saw.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from placement.time import Exchange
from placement.time.calibration.check import between
from placement.time.calibration.exchanges import CurveRows, curve_rows, fit_bottlenecks, fit_curve, link_rates
from placement.time.calibration.experts import expert_rows, held_out, relative_errors
from placement.time.calibration.package import SYSTEMS, package_tables
from placement.time.calibration.tables import kind_of, read_table
from traces import InputError

TOKENS = (16, 32, 64, 128, 512, 2048)
LEAST_RANKS = 8


def told(name: str, predicted: Any, measured: Any) -> None:
    """Print the errors of one comparison."""
    median, p90 = relative_errors(predicted, measured)
    print(f"  {name}: {len(measured)} rows, median {median:.1%}, 90 % within {p90:.1%}")


def ratios(columns: Any, rows: Any, predicted: Any) -> None:
    """Print mean skewed / uniform time over EP sizes from 8, measured and predicted."""
    times: dict[tuple[str, int, int], tuple[float, float]] = {}
    for at, row in enumerate(rows.index.tolist()):
        ranks = int(columns["moe_ep_size"][row])
        key = (str(columns["distribution"][row]), ranks, int(columns["num_tokens"][row]) // ranks)
        times[key] = (float(rows.measured[at]), float(predicted[at]))
    good = 0
    lines: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for (law, ranks, tokens), pair in times.items():
        even = times.get(("uniform", ranks, tokens))
        if law in ("power_law_0.8", "power_law_1.2") and even and ranks >= LEAST_RANKS and tokens in TOKENS:
            lines[law, tokens].append(np.log(np.divide(pair, even)))
    for (law, tokens), logs in sorted(lines.items()):
        measured, model = np.exp(np.mean(logs, axis=0))
        good += abs(model / measured - 1) <= 0.15
        print(f"    {law} at {tokens} tokens per rank: {measured:.2f} measured, {model:.2f} predicted")
    print(f"    within 15 %: {good} of {len(lines)}")


def signs(columns: Any, rows: Any, predicted: Any) -> None:
    """Print in how many pairs that differ by more than 5 % the sign of `_eplb` against none is right."""
    plain, balanced = {}, []
    for at, row in enumerate(rows.index.tolist()):
        law, slots = str(columns["distribution"][row]), int(columns["num_slots"][row])
        names = ("hidden_size", "num_experts", "moe_ep_size", "num_tokens")
        key = (law.removesuffix("_eplb"), *(int(columns[name][row]) for name in names))
        pair = np.log([rows.measured[at], predicted[at]])
        if law.endswith("_eplb"):
            balanced.append((key, slots, pair))
        else:
            plain[key] = pair
    for same in (True, False):
        found = [pair - plain[key] for key, slots, pair in balanced if key in plain and (not same or slots == key[2])]
        far = [np.sign(one) == np.sign(other) for one, other in found if abs(one) > np.log(1.05)]
        which = "same slots" if same else "any slots"
        print(f"    _eplb against none, {which}: right in {np.mean(far):.1%} of {len(far)} pairs")


def rows_of(path: Path) -> list[CurveRows]:
    """Return the curves of a table."""
    columns = read_table(path)
    return list(curve_rows(columns, kind_of(columns, path.name)))


def nodes_left_out(path: Path, links: Mapping[int, float]) -> None:
    """Print errors for numbers of nodes that no fit of this kernel saw; links are known by another kernel."""
    rows = rows_of(path)
    curves = [fit_curve(points) for points in rows]
    errors: dict[tuple[str, int], list[float]] = defaultdict(list)
    for points in rows:
        own = points.curve
        if own.nodes == 1:
            continue
        others = tuple(
            curve
            for curve in curves
            if curve.nodes not in (1, own.nodes) and (curve.sms, curve.num_experts) == (own.sms, own.num_experts)
        )
        limits = fit_bottlenecks((each for each in rows if each.curve.nodes != own.nodes), links)
        predicted = between(Exchange(backend=points.backend, curves=others, source="", bottlenecks=limits), points)
        if predicted is not None:
            errors[own.way, own.nodes] += np.abs(predicted / points.measured - 1).tolist()
    for (way, nodes), found in sorted(errors.items()):
        print(f"    {way} on {nodes} nodes: {len(found)} rows, median {np.median(found):.1%}")
    print(f"    all: median {np.median(np.concatenate(list(errors.values()))):.1%}")


def main() -> None:
    """Print everything for the GPUs that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gpus", nargs="*", default=["h100", "h200", "b200", "b300", "gb200", "gb300"])
    asked = parser.parse_args().gpus
    try:
        root = package_tables()
    except InputError as error:
        print(f"Nothing is compared: {error}")
        return
    for gpu in asked:
        print(gpu)
        folder, start = root / SYSTEMS[gpu], time.perf_counter()
        wide = sorted(folder.glob("moe/sglang/0.5.10/wideep_*_moe_perf.parquet"))
        for path in [*wide, *sorted(folder.glob("moe/trtllm/*/wideep_moe_perf.parquet"))[-1:]]:
            columns = read_table(path)
            for rows in expert_rows(columns, path.name):
                predicted = held_out(rows)
                told(" ".join(rows.key[1:]), predicted, rows.measured)
                (signs if "num_slots" in columns else ratios)(columns, rows, predicted)
        medians: dict[str, list[float]] = defaultdict(list)
        exchanges = [path for what in ("*deepep*", "*alltoall*") for path in folder.glob(f"comm/*/*/{what}.parquet")]
        for path in sorted(exchanges):
            columns = read_table(path)
            for points in curve_rows(columns, kind_of(columns, path.name)):
                medians[points.backend].append(fit_curve(points).error.median)
        for backend, found in medians.items():
            print(f"  {backend}: {len(found)} curves, median of their held-out medians {np.median(found):.1%}")
        several = sorted(folder.glob("comm/sglang/0.5.6*/*deepep*_perf.parquet"))
        links = link_rates(rows for path in several for rows in rows_of(path))
        for path in several:
            print(f"  nodes left out, {path.stem}")
            nodes_left_out(path, links)
        print(f"  {time.perf_counter() - start:.0f} s, one core")


if __name__ == "__main__":
    main()

"""Refitting everything from the tables of the package ``aiconfigurator-core``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from placement.time.calibration.exchanges import CurveRows, curve_rows, fit_bottlenecks, fit_curve, link_rates
from placement.time.calibration.experts import expert_rows, fit_experts
from placement.time.calibration.tables import gpu_of, kind_of, read_table
from placement.time.catalogue import Coefficients
from placement.time.exchange import Curve, Exchange
from placement.time.experts import ExpertKernel
from traces import InputError

__all__ = ["SYSTEMS", "calibrate", "gpu_in", "package_tables", "tables_of"]

PACKAGE, LICENCE = "aiconfigurator-core", "Apache-2.0"
SYSTEMS = {
    "a100": "a100_sxm",
    "l40s": "l40s",
    "h100": "h100_sxm",
    "h200": "h200_sxm",
    "b200": "b200_sxm",
    "b300": "b300_sxm",
    "gb200": "gb200",
    "gb300": "gb300",
    "rtx-pro-6000": "rtx_pro_6000_server",
}
# Newest of each that a GPU has; of DeepEP also the older ones, which alone have several nodes.
WANTED = (
    ("moe/sglang/0.5.10/wideep_context_moe_perf", False),
    ("moe/sglang/0.5.10/wideep_generation_moe_perf", False),
    ("moe/trtllm/*/wideep_moe_perf", False),
    ("moe/sglang/*/moe_perf", False),
    ("moe/vllm/*/moe_perf", False),
    ("moe/trtllm/*/moe_perf", False),
    ("comm/sglang/*/wideep_deepep_normal_perf", True),
    ("comm/sglang/*/wideep_deepep_ll_perf", True),
    ("comm/*/*/moe_a2a_perf", True),
    ("comm/trtllm/*/trtllm_alltoall_perf", False),
    ("comm/nccl/*/nccl_perf", False),
)
VARIANTS = ("nongated", "situ_as_silu")  # experts of two matrices, and stand-ins: no model of these files has them
LEAST_ROWS = 1_500  # of a kernel of the package, measured; rarer ones are variants of others
MAX_ROWS = 600  # of a kernel in a table of many shapes
WIDE_ROWS = 6_000


def package_tables() -> Path:
    """Return the folder of the package's tables.

    Raises
    ------
    InputError
        If the package is not installed.
    """
    found = find_spec("aiconfigurator_core")
    if found is None or not found.submodule_search_locations:
        detail = f"The measurements are in the package {PACKAGE}, which is not installed."
        raise InputError.of(
            "no_calibrate_extra", "/tables", detail, 'Run: pip install "moe-placement[calibrate]", or name tables.'
        )
    return Path(next(iter(found.submodule_search_locations))) / "systems" / "data"


def tables_of(gpu: str, root: Path) -> list[Path]:
    """Return the tables of one GPU, the newest version of each, in the order of `WANTED`."""
    chosen: list[Path] = []
    for pattern, every in WANTED:
        there = sorted((root / SYSTEMS[gpu]).glob(f"{pattern}.parquet"), key=lambda path: _version(path.parent.name))
        full = [path for path in there if path.stat().st_size > 0]
        chosen += full if every else full[-1:]
    return chosen


def _version(text: str) -> tuple[int, ...]:
    parts = text.replace("rc", ".").replace("post", ".").split(".")
    return tuple(int(part) if part.isdecimal() else 0 for part in parts)


def gpu_in(paths: Iterable[str | Path]) -> str:
    """Return the one GPU that tables are of.

    Raises
    ------
    InputError
        If they are of none or of several.
    """
    found: set[str] = set()
    for path in paths:
        columns = read_table(path)
        found |= {gpu_of(str(device)) for device in columns.get("device", [])}
    if len(found) != 1:
        detail = f"The tables' column `device` names {', '.join(sorted(found)) or 'no GPU'}."
        raise InputError.of("which_gpu", "/gpu", detail, "Name the GPU with `gpu`, and give tables of one at a time.")
    return found.pop()


def calibrate(
    gpu: str,
    paths: Iterable[str | Path],
    *,
    source: dict[str, str] | None = None,
    root: Path | None = None,
    limit: int = MAX_ROWS,
    report: Callable[[str], None] | None = None,
) -> Coefficients:
    """Fit the coefficients of one GPU to tables of it.

    Parameters
    ----------
    gpu : str
    paths : iterable of paths
    source : dict, optional
        Where the tables are from; the package where it is left out.
    root : Path, optional
        What table names are shown relative to.
    limit : int
        Most rows per kernel, of tables that are not of expert parallelism over several nodes.
    report : function
        Is told each table.
    """
    kernels: dict[tuple[str, str, str], ExpertKernel] = {}
    curves: dict[str, list[tuple[Curve, str]]] = {}
    measured: dict[str, list[CurveRows]] = {}
    for path in map(Path, paths):
        name = str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else path.name
        if report is not None:
            report(name)
        columns = read_table(path)
        kind = kind_of(columns, name)
        if kind == "experts":
            wide = "wideep" in name
            for rows in expert_rows(columns, name, WIDE_ROWS if wide else limit):
                key = rows.key[1:]
                enough = root is None or wide or len(rows.measured) + rows.skipped >= LEAST_ROWS
                if enough and key not in kernels and not (root is not None and key[0].endswith(VARIANTS)):
                    kernels[key] = fit_experts(rows, name, gpu=gpu)
        else:
            for points in curve_rows(columns, kind):
                curves.setdefault(points.backend, []).append((fit_curve(points), name))
                measured.setdefault(points.backend, []).append(points)
    links = link_rates(rows for each in measured.values() for rows in each)
    exchanges = [
        Exchange(
            backend=backend,
            curves=tuple(curve for curve, _ in found),
            bottlenecks=fit_bottlenecks(measured[backend], links),
            source=", ".join(dict.fromkeys(name for _, name in found)),
        )
        for backend, found in curves.items()
    ]
    told = source or {"package": PACKAGE, "version": metadata.version(PACKAGE), "licence": LICENCE}
    return Coefficients(gpu=gpu, source=told, kernels=tuple(kernels.values()), exchanges=tuple(exchanges))

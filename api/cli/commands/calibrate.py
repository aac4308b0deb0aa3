"""``moe-placement calibrate``: the time model's coefficients, fitted to measurements or judged by them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.console import Json, print_json, say, write
from api.cli.options import output_option

if TYPE_CHECKING:
    from placement.time import Coefficients
    from placement.time.calibration.check import Judged

__all__ = ["calibrate"]


def calibrate(
    tables: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TABLE]...",
            help="Measurements, .parquet or .csv; without any, those of the package aiconfigurator-core.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Fit nothing: judge the coefficients by these tables.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="GPU of the tables, or the only one to refit from the package."),
    ] = None,
    coefficients: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --check: judge this coefficient file, not those that ship."),
    ] = None,
    limit: Annotated[int, typer.Option(min=50, metavar="ROWS", help="Most rows per kernel and table.")] = 600,
    output: Annotated[
        Path | None,
        output_option("--output", "-o", metavar="PATH", text="File to write; a folder for all GPUs of the package."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit the time model to measurements, or judge it by them (--check)."""
    from placement.time import read_coefficients
    from traces import InputError

    given = tables or []
    if check:
        if not given or output is not None or gpu is not None:
            raise typer.BadParameter("Takes tables, and neither --output nor --gpu.", param_hint="--check")
        from placement.time.calibration.check import check_tables

        own = None if coefficients is None else read_coefficients(coefficients)
        _show(check_tables(given, own=own, limit=limit), as_json)
        return
    if coefficients is not None:
        raise typer.BadParameter("Is judged by --check only.", param_hint="--coefficients")
    if output is None:
        raise typer.BadParameter("Say where the coefficients go.", param_hint="--output")
    from placement.time.calibration import package

    if given:
        name = gpu or package.gpu_in(given)
        source = {"tables": ", ".join(path.name for path in given)}
        fitted = [(output, package.calibrate(name, given, source=source, limit=limit, report=_told))]
    else:
        root = package.package_tables()
        if gpu is not None and gpu not in package.SYSTEMS:
            remedy = f"Give one of {', '.join(package.SYSTEMS)}."
            raise InputError.of("unknown_gpu", "/gpu", f"The package has no GPU {gpu!r:.40}.", remedy)
        if gpu is None:
            output.mkdir(parents=True, exist_ok=True)
        names = list(package.SYSTEMS) if gpu is None else [gpu]
        fitted = []
        for name in names:
            found = package.calibrate(name, package.tables_of(name, root), root=root, limit=limit, report=_told)
            fitted.append((output if gpu is not None else output / f"{name}.json", found))
    from placement.time.catalogue import to_json

    for path, found in fitted:
        path.write_text(to_json(found), encoding="utf-8")
    if as_json:
        print_json({"files": [_summary(path, found) for path, found in fitted]})
        return
    for path, found in fitted:
        write(f"{path} written: {len(found.kernels)} kernels and {len(found.exchanges)} back ends of {found.gpu}.")
        for kernel in found.kernels:
            error = kernel.error
            write(
                f"  {kernel.name} {kernel.phase} {kernel.dtype}: median {error.median:.1%}, p90 {error.p90:.1%} "
                f"({error.rows} rows, {error.left_out} left out)"
            )


def _told(text: str) -> None:
    say(text, "fitting")


def _summary(path: Path, found: Coefficients) -> dict[str, Any]:
    kernels = [
        {"name": kernel.name, "phase": kernel.phase, "dtype": kernel.dtype} | asdict(kernel.error)
        for kernel in found.kernels
    ]
    exchanges = [
        {"backend": exchange.backend, "curves": len(exchange.curves), "median": _middle(exchange.curves)}
        for exchange in found.exchanges
    ]
    return {
        "path": str(path),
        "gpu": found.gpu,
        "source": dict(found.source),
        "kernels": kernels,
        "exchanges": exchanges,
    }


def _middle(curves: Any) -> float:
    values = sorted(curve.error.median for curve in curves)
    return float(values[len(values) // 2])


def _show(judged: tuple[Judged, ...], as_json: bool) -> None:
    if as_json:
        print_json({"judged": [asdict(part) for part in judged]})
        return
    from api.report.tables import table

    rows = [
        [
            part.gpu,
            part.phase,
            " ".join(filter(None, (part.kernel, part.dtype))),
            part.judged_by,
            f"{part.rows:,}",
            f"{part.median:.1%}",
            f"{part.p90:.1%}",
            "-" if part.held_out_median is None else f"{part.held_out_median:.1%}",
        ]
        for part in judged
    ]
    header = ["GPU", "phase", "measured", "judged by", "rows", "median\nerror", "90 %\nwithin", "held out\nmedian"]
    write(table(header, rows, left=4))

"""``moe-placement front``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.knobs import OUTPUT
from api.cli.options import output_option
from api.cli.progress import Progress, progress
from api.cli.reading import TraceReading, read_executor
from api.cli.remote.service import ServerOption, refuse_options
from api.report.tables import table
from solvers.requests.request import FrontRequest

if TYPE_CHECKING:
    from api.cli.inputs import Inputs
    from placement import Plan
    from solvers.seeds import MakeExecutor

__all__ = ["front"]


@asks(TraceReading, "reading")
@asks(FrontRequest)
def front(
    trace: shared.TraceArgument,
    asked: Asked,
    reading: Asked,
    plan_format: shared.PlanFormatOption = None,
    executor: shared.ExecutorOption = None,
    workers: shared.WorkersOption = None,
    output: Annotated[
        Path | None,
        output_option(
            "--output",
            "-o",
            metavar="FILE",
            text="Plan file of the picked point (JSON).  [default: TRACE.plan.json, here; none with --out-dir]",
        ),
    ] = None,
    pick: Annotated[
        str,
        typer.Option(
            metavar="knee|cap=RATIO",
            rich_help_panel=OUTPUT,
            help="Point that -o gets: the knee, or the "
            "cheapest whose busiest GPU, mean over layers, is at most RATIO times the mean.",
        ),
    ] = "knee",
    out_dir: Annotated[Path | None, output_option(metavar="DIR", text="Write the plan of every point there.")] = None,
    plot: Annotated[
        Path | None, output_option(metavar="FILE", text="Chart to write: .svg, or .png (needs matplotlib).")
    ] = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Find many plans at once: what less traffic costs in balance, in replicas, or in bytes moved."""
    if server is not None:
        refuse_options({"--workers": workers, "--executor": executor, "--plan-format": plan_format})
    wish = _read_pick(pick)

    from api.cli.inputs import plan_path, read_inputs
    from api.cli.outputs import Checks, check_outputs
    from api.report.summary import warnings_text
    from solvers.fronts.judged import pick as pick_point
    from solvers.plotting.chart import check_chart, write_chart

    if out_dir is None:
        output = plan_path(trace, output)
    with Checks() as checks:
        read = reading.build(checks)
        own = (trace, asked.get("start"), reading.get("model"))
        checks.run(lambda: check_outputs({"--output": output, "--plot": plot}, own))
        checks.run(lambda: check_chart(plot))
        checks.run(lambda: _check_folder(out_dir, own))
        if read is not None:
            given = read_inputs(checks, asked, read, trace, plan_format=plan_format, server=server)
    assumed = None
    with progress() as shown:
        if server is not None:
            from api.cli.remote.front import front_remotely

            document, plans = front_remotely(server, trace, read.load_options(given.model), given.body, shown=shown)
            best = pick_point(document, wish)
            _save(plans, best, out_dir, output)
        else:
            assert given.request is not None
            where = read_executor(given.request.seeds, executor)
            document, best, assumed = _search(given, wish, out_dir, output, workers, where, shown)
        if plot is not None:
            write_chart(plot, document)
    document |= {
        "picked": best,
        "plan": None if output is None else str(output),
        "out_dir": None if out_dir is None else str(out_dir),
        "plot": None if plot is None else str(plot),
    }
    for note in document["notes"]:
        say(note, "note")
    if document["stopped"]:
        say("The search was stopped by hand; these are the points so far.", "note")
    for warning in warnings_text(document["points"][best]["warnings"]):
        say(warning, "warning")
    if as_json:
        print_json(document)
        return
    if assumed is not None:
        write(f"{assumed}\n")
    count = len(document["points"])
    write(f"{count} plans after {document['elapsed_s']:.1f} s, none of them beaten in both figures.\n")
    write(_table(document) + "\n")
    for name, path in (("Picked plan", output), ("Plans", out_dir), ("Chart", plot)):
        if path is not None:
            write(f"{name} written to {path}")


def _search(
    given: Inputs,
    wish: str | float,
    out_dir: Path | None,
    output: Path | None,
    workers: int | None,
    executor: MakeExecutor | None,
    shown: Progress,
) -> tuple[dict[str, Any], int, str | None]:
    """Search here, write the plans, and return the document, the picked point, and how tokens are assumed to travel."""
    from api.report.verdict import engine_note
    from solvers import Study
    from solvers.fronts.judged import front_document, judge_front
    from solvers.fronts.judged import pick as pick_point

    assert given.source is not None
    shown.phase("reading and profiling")
    study = Study.of(given.source, request=given.request, workers=workers)
    shown.phase("searching")
    seeds = study.request.seeds
    found = study.front(
        workers=workers,
        executor=executor,
        observe=shown.observe if executor is None else None,
        progress=lambda done: shown.phase(f"searching: {done} of {seeds} seeds"),
    )
    best = pick_point(found, wish)
    # Written before they are judged, as the search takes longest.
    _save([point.plan for point in found.points], best, out_dir, output)
    shown.phase("replaying tokens")
    judged = judge_front(study.problem, study.parts, found, workers=workers)
    document = front_document(study.problem, found, judged, study.notes)
    return document, best, engine_note(study)


def _save(plans: Sequence[Plan], best: int, out_dir: Path | None, output: Path | None) -> None:
    """Write the plans of all points, and the picked one."""
    if out_dir is not None:
        for number, plan in enumerate(plans):
            plan.save(out_dir / f"point-{number:02d}.json")
    if output is not None:
        plans[best].save(output)


def _read_pick(text: str) -> str | float:
    """Read ``knee`` or ``cap=1.05``."""
    word, equals, value = text.strip().lower().partition("=")
    if word == "knee" and not equals:
        return word
    try:
        if word == "cap" and equals:
            return float(value)
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is neither knee nor cap=RATIO, such as cap=1.05.", param_hint="--pick")


def _check_folder(folder: Path | None, inputs: tuple[str | Path | None, ...]) -> None:
    """Make the folder for the plans, or say why it can't be; no point may overwrite an input."""
    if folder is None:
        return
    from traces import InputError

    for path in [Path(item) for item in inputs if item is not None]:
        if path.resolve().parent == folder.resolve() and path.name.startswith("point-"):
            detail = f"{path.name} is read, and would be overwritten by a plan of the front."
            raise InputError.of("overwrites_input", str(folder), detail, "Give --out-dir another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        detail = f"--out-dir can't be made: {error.strerror}."
        raise InputError.of("cannot_write", str(folder), detail, "Name a folder that can be written.") from error


def _table(document: dict[str, Any]) -> str:
    """Return the points, one a row: fitted figures, then the same on held-out tokens where there are any."""
    first = document["points"][0]["fit"] or {}
    remote = first.get("remote_nodes") is not None
    beyond = ["remote_gpus", "remote_nodes"] if remote else ["cross_gpu_fraction", "cross_node_fraction"]
    beyond += [] if first.get("activated_experts") is None else ["activated_experts"]
    header = ["point", "traffic\nfitted", "max/mean\nfitted", "worst\nlayer"]
    parts = [name for name in ("fit", "held_out") if document["points"][0][name] is not None]
    if "held_out" in parts:
        header += [
            "traffic\nheld out",
            "max/mean\nheld out",
            *(f"{name.replace('_fraction', '')}\nheld out" for name in beyond),
        ]
    elif parts:
        header += [name.replace("_fraction", "") for name in beyond]
    costs = [] if document["against"] == "imbalance" else ["score"]  # there the traffic is the cost
    header += costs
    columns = ["slots_per_gpu", "redundant_experts"] if document["against"] == "replicas" else []
    columns += ["extra_bytes"] if columns and document["points"][0]["extra_bytes"] is not None else []
    columns += [
        name for name in ("moved_experts", "moved_bytes", "lost_experts") if document["points"][0][name] is not None
    ]
    header += [name.replace("_", "\n", 1).replace("_", " ") for name in columns]
    rows = []
    for number, point in enumerate(document["points"]):
        marks = [word for word in ("knee", "picked") if document[word] == number]
        row = [
            f"{number} {' '.join(marks)}".strip(),
            *(f"{point[key]:.4f}" for key in ("traffic", "imbalance", "worst_layer")),
        ]
        if "held_out" in parts:
            held = point["held_out"]
            row += [f"{held[key]:.4f}" for key in ("traffic", "imbalance_max_over_mean", *beyond)]
        elif parts:
            row += [f"{point['fit'][key]:.4f}" for key in beyond]
        row += [f"{point[name]:.4f}" for name in costs]
        rows.append([*row, *(f"{point[name]:,}" for name in columns)])
    return table(header, rows)

"""``moe-placement demo``: the sample trace from end to end."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which
from typing import Annotated

import typer

from api.cli import options as shared
from api.cli import reading
from api.cli.console import Json, say, write

__all__ = ["demo"]

LOAD_CAP = 1.05
NEXT = """
What the tables say: on sequences that the plan has not seen (held out), the share of hops that change GPU goes
from {before:.0%} to {after:.0%}, and the load of the busiest GPU from {busiest[0]:.2f} to {busiest[1]:.2f} times
the mean.

What to do next:
  Open {report} in a browser: charts of the same figures.
  Replay any trace through a plan:
    {command} evaluate {plan} {trace}
  Is there any affinity to use in a trace of yours?
    {command} profile YOUR_TRACE
  Plan it for 4 nodes of 8 GPUs:
    {command} solve YOUR_TRACE --topology 4x8 --load-cap 1.05 -o plan.json
The trace formats are in docs/formats.md, the tutorial in docs/tutorial.md."""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")] = Path(
        "demo-out"
    ),
    topology: Annotated[str, typer.Option(metavar="NxG", help="As for `solve`.")] = "1x4",
    time_limit: Annotated[float, typer.Option(metavar="S", help="Seconds to search.")] = 5.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the search.")] = 0,
    workers: shared.WorkersOption = None,
    as_json: Json = False,
) -> None:
    """Plan the sample trace, show before and after, and write a plan and a report: start here."""
    from api.cli.outputs import check_outputs
    from api.cli.planned import plan_and_tell
    from api.planning import PlanRequest, open_source
    from api.sample import sample_path
    from placement import Constraints
    from solvers import Limits
    from traces import InputError

    trace = _short(sample_path())
    request = PlanRequest(
        topology=reading.read_topology(topology),
        constraints=Constraints(load_cap=LOAD_CAP),
        limits=Limits(time_s=time_limit),
        seed=seed,
    )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError.of(
            "cannot_write", str(output), f"Can't make this folder: {error.strerror}.", "Choose another one with -o."
        ) from error
    plan, report = output / "plan.json", output / "report.html"
    check_outputs({"plan": plan, "report": report}, (trace,))
    say(f"Planning the sample trace {trace} on {topology} GPUs, load cap {LOAD_CAP:g}, for {time_limit:g} s ...")
    told = plan_and_tell(open_source(trace), request, output=plan, report=report, workers=workers, as_json=as_json)
    if not as_json:
        figures = [told["summary"]["plans"][name]["held_out"] for name in ("contiguous", "plan")]
        crossing = [found["cross_gpu_fraction"] for found in figures]
        busiest = [found["imbalance_max_over_mean"] for found in figures]
        write(
            NEXT.format(
                command=_command(),
                plan=plan,
                report=report,
                trace=trace,
                before=crossing[0],
                after=crossing[1],
                busiest=busiest,
            )
        )


def _command() -> str:
    """Return how to call this command from the current folder."""
    return "moe-placement" if which("moe-placement") else str(_short(Path(sys.argv[0]).absolute()))


def _short(path: Path) -> Path:
    """Return a path relative to the current folder where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

"""``moe-placement demo``: the sample trace from end to end."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which
from typing import Annotated

from api.cli import options as shared
from api.cli.console import Json, say, write
from api.cli.declared import Asked, asks
from api.cli.options import output_option
from solvers.requests.request import Request

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
  Plan it for SGLang on 4 nodes of 8 GPUs (other engines: vllm, tensorrt-llm, ...; --help):
    {command} solve YOUR_TRACE --engine sglang --topology 4x8 --load-cap 1.05 -o plan.json
The trace formats are in docs/formats.md, the tutorial in docs/tutorial.md."""


@asks(
    Request,
    only=("topology", "time_limit", "seed"),
    defaults={"topology": "1x4", "time_limit": 5.0},
)
def demo(
    asked: Asked,
    workers: shared.WorkersOption = None,
    output: Annotated[
        Path, output_option("--output", "-o", metavar="FOLDER", text="Folder for the results.  [default: demo-out]")
    ] = Path("demo-out"),
    as_json: Json = False,
) -> None:
    """Plan the sample trace, show before and after, and write a plan and a report: start here."""
    from api.cli.outputs import Checks, check_outputs
    from api.cli.planned import plan_and_tell
    from api.sample import sample_path
    from placement import Constraints, load_topology
    from solvers.sources.source import open_source
    from traces import InputError

    trace = _short(sample_path())
    with Checks() as checks:
        machine = checks.run(lambda: load_topology(asked.get("topology")))
        apart = {"topology": machine or "1x1", "constraints": Constraints(load_cap=LOAD_CAP)}
        request = asked.build(checks, **apart)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError.of(
            "cannot_write", str(output), f"Can't make this folder: {error.strerror}.", "Choose another one with -o."
        ) from error
    plan, report = output / "plan.json", output / "report.html"
    check_outputs({"plan": plan, "report": report}, (trace,))
    where, seconds = request.machine.name, request.limits.time_s
    for_so_long = "" if seconds is None else f", for {seconds:g} s"
    say(f"Planning the sample trace {trace} on {where} GPUs, load cap {LOAD_CAP:g}{for_so_long} ...")
    told = plan_and_tell(open_source(trace), request, output=plan, report=report, workers=workers, as_json=as_json)
    if not as_json:
        figures = [told["summary"]["plans"][name]["held_out"] for name in (told["summary"]["baseline"], "plan")]
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

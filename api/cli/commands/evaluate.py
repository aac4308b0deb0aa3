"""``moe-placement evaluate``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.progress import progress
from api.cli.reading import TraceReading
from api.cli.remote.service import ServerOption, refuse_options
from api.cli.replaying import REPLAY_OPTIONS
from solvers.requests.request import Request

__all__ = ["evaluate"]


@asks(TraceReading, "reading")
@asks(Request, only=REPLAY_OPTIONS, defaults={"topology": None})
def evaluate(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="Plan, or placement file of an engine; with --server also plan_...")
    ],
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace to replay.")],
    asked: Asked,
    reading: Asked,
    part: shared.PartOption = "all",
    plan_format: shared.PlanFormatOption = None,
    workers: shared.WorkersOption = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Replay every token of a trace through a plan, as the plan was made for unless other options are given.

    Of counts, the expected loads are told, for each dump where there are several.
    """
    from api.cli import replaying
    from api.cli.outputs import Checks

    if server is not None:
        refuse_options(replaying.local_options([plan], workers, plan_format))
    replaying.check_part(part, asked.get("hold_out"), asked.get("hold_out_by"))
    with Checks() as checks:
        read = reading.build(checks)

    from api.cli.expected import tell_expected
    from api.report.summary import replay_text
    from solvers.judging.replays import part_figures

    with progress() as shown, ExitStack() as stack:
        replays = replaying.Replays.of(
            [plan],
            trace,
            asked,
            read,
            part=part,
            plan_format=plan_format,
            workers=workers,
            server=server,
            stack=stack,
            shown=shown,
        )
        if replays.expected is not None:
            tell_expected(replays, {str(plan): plan}, asked, trace, part, as_json)
            return
        shown.phase("replaying tokens" if server is None else "waiting for the service")
        ((loaded, where),) = replays.plans
        batch = asked.get("objective", "decode_batch")
        objective = replaying.counted(replays.objective(loaded, asked), loaded, batch)
        found = replays.replay(plan, loaded, where, objective)
    for note in replays.notes:
        say(note, "note")
    if as_json:
        both = part_figures(found)
        extra = {"context_coherent": both["context_coherent"], "dispatch": both["dispatch"]}
        extra |= {"kind": "tokens", "plan": str(plan), "trace": str(trace), "part": part, "topology": where.name}
        print_json(found.evaluation.as_dict() | extra | {"notes": list(replays.notes)})
        return
    write(f"{plan} on {where.name}, {part.replace('_', ' ')} tokens of {trace}\n")
    write(replay_text(part, {plan.stem: found}))

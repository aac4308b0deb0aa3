"""``moe-placement compare``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.progress import progress
from api.cli.reading import TraceReading
from api.cli.remote.service import ServerOption, refuse_options
from api.cli.replaying import CHOICES, REPLAY_OPTIONS
from solvers.requests.request import Request

if TYPE_CHECKING:
    from api.cli.replaying import Replays
    from placement import SettledObjective
    from solvers import Comparison

__all__ = ["compare"]


@asks(TraceReading, "reading")
@asks(Request, only=REPLAY_OPTIONS, defaults={"topology": None})
def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PLAN... TRACE",
            help="Plans, or placement files of engines, then the trace; with --server also plan_... and sha256:...",
        ),
    ],
    asked: Asked,
    reading: Asked,
    part: shared.PartOption = "all",
    plan_format: shared.PlanFormatOption = None,
    workers: shared.WorkersOption = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Replay a trace through several plans, all as the first was made for unless other options are given.

    Of counts, the expected loads are told, for each dump where there are several.
    """
    from api.cli import replaying
    from api.cli.outputs import Checks

    *files, trace = paths
    if not files:
        raise typer.BadParameter("Name at least one plan, and the trace last.", param_hint="PLAN... TRACE")
    if server is not None:
        refuse_options(replaying.local_options(files, workers, plan_format))
    replaying.check_part(part, asked.get("hold_out"), asked.get("hold_out_by"))
    with Checks() as checks:
        read = reading.build(checks)
        checks.run(lambda: _check_trace(trace))

    from api.cli.expected import tell_expected
    from api.report.summary import comparison_text, replay_text
    from solvers.judging.replays import part_figures

    with progress() as shown, ExitStack() as stack:
        replays = replaying.Replays.of(
            files,
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
            tell_expected(replays, dict(zip(_names(files), files, strict=True)), asked, trace, part, as_json)
            return
        objectives = [replays.objective(loaded, asked) for loaded, _ in replays.plans]
        # One for all, or the rows would not compare.
        batch = asked.get("objective", "decode_batch")
        objective = replaying.counted(objectives[0], replays.plans[0][0], batch)
        names = _names(files)
        shown.phase("replaying tokens" if server is None else "waiting for the service")
        engine = asked.get("engine") or replays.plans[0][0].provenance.get("engine")
        whole = _judged(replays, names, part, objective, engine, asked.get("pass_tokens") or (), workers)
        if whole is None:
            found = {
                name: replays.replay(file, loaded, where, objective)
                for name, file, (loaded, where) in zip(names, files, replays.plans, strict=True)
            }
        else:
            found = {row.name: row.parts[part] for row in whole.rows}
    notes = (*replays.notes, *_differences(files, objectives))
    for note in notes:
        say(note, "note")
    if as_json:
        documents = []
        for name, file, (loaded, where) in zip(names, files, replays.plans, strict=True):
            own = {"score": loaded.score, "bound": loaded.bound, "gap": loaded.gap}
            documents.append({"plan": str(file), "topology": where.name} | own | part_figures(found[name]))
        more: dict[str, Any] = {"baseline": None, "best": None}
        if whole is not None:
            scores = {row.name: row.score for row in whole.rows}
            base = {"plan": whole.baseline, "score": scores[whole.baseline]} if whole.baseline in scores else None
            more = {
                "baseline": None if base is None else base | part_figures(found[whole.baseline]),
                "best": whole.best.name,
                "scores": scores,
            }
        used = {name: getattr(objective, name) for name in CHOICES}
        print_json(
            {"kind": "tokens", "trace": str(trace), "part": part}
            | used
            | {"notes": list(notes), "plans": documents}
            | more
        )
        return
    write(replay_text(part, found) if whole is None else comparison_text(whole))


def _check_trace(trace: Path) -> None:
    """Refuse a plan where the trace should be: none was named."""
    from placement.exports import Document, recognise
    from traces import InputError

    try:
        form = recognise(Document.of(trace)) if trace.suffix.lower() in (".json", ".jsonl") else None
    except InputError:
        return  # whatever it is, the trace readers say what is wrong with it
    if form is not None:
        detail = f"{trace.name} holds a placement ({form.name}), and the trace is missing."
        raise InputError.of("trace_missing", "PLAN... TRACE", detail, "Name the trace to replay last.")


def _names(files: Sequence[Path]) -> list[str]:
    """Return a name for each plan; a file that is named again gets a number."""
    names: list[str] = []
    for file in files:
        again = sum(name.partition(" (")[0] == str(file) for name in names)
        names.append(f"{file} ({again + 1})" if again else str(file))
    return names


def _judged(
    replays: Replays,
    names: Sequence[str],
    part: str,
    objective: SettledObjective,
    engine: str | None,
    pass_tokens: tuple[int, ...],
    workers: int | None,
) -> Comparison | None:
    """Score all plans on the tokens, beside what happens when nobody plans.

    None where no score compares them: their machines or slots differ, or a service replays.
    """
    from placement import Problem
    from solvers import Request, Study
    from solvers.judging.comparing import judge
    from traces import InputError, Profile, Trace

    first, where = replays.plans[0]
    sizes = {(plan.slots_per_gpu, place.name, *place.gpus_per_node) for plan, place in replays.plans}
    if not isinstance(replays.tokens, Trace) or len(sizes) > 1:
        return None
    parts = {part: replays.tokens}
    plans = {name: plan for name, (plan, _) in zip(names, replays.plans, strict=True)}
    try:
        profile = Profile.of(replays.tokens, workers=workers)
        problem = Problem(profile, where, first.slots_per_gpu, objective, engine=engine)
        request = Request(topology=where, slots_per_gpu=first.slots_per_gpu)
        study = Study(request=request, problem=problem, fit=replays.tokens, held_out=None, notes=())
        base = study.baseline
    except InputError:
        return None  # a problem refuses what a replay allows: replicas by node where tokens have no home, say
    rows = ({} if base is None else {study.baseline_name: base}) | plans
    return judge(problem, parts, rows, baseline=study.baseline_name, pass_tokens=pass_tokens, workers=workers)


def _differences(files: Sequence[Path], objectives: Sequence[SettledObjective]) -> tuple[str, ...]:
    """Return a note where plans would be replayed in other ways than the first one, which decides."""
    first = objectives[0]
    others = [str(file) for file, objective in zip(files, objectives, strict=True) if objective != first]
    if not others:
        return ()
    used = ", ".join(f"{name.replace('_', ' ')} {getattr(first, name).replace('_', '-')}" for name in CHOICES)
    return (
        f"The plans' objectives differ. All are replayed as {files[0]} would be: {used}. Alone, {', '.join(others)} "
        "would be replayed otherwise. Choose with --execution, --dedup, --ownership and --replica-policy.",
    )

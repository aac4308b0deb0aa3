"""``moe-placement check``: a placement file, or a recording, examined."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.console import BAD_INPUT, Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.knobs import WHAT
from api.cli.reading import TraceReading
from api.cli.remote.service import ServerOption, service_at
from api.cli.remote.trace import send_trace
from api.cli.writing import PlacementWriting, form_of

if TYPE_CHECKING:
    from placement.exports import Document
    from traces import Finding

__all__ = ["check"]

WIDTH = 100
MATRIX = "vllm_pr49572"  # lists of numbers: a placement, or counts
OF_PLACEMENT = ("topology", "without_mtp", "model_class", "mtp_model_class")
OF_LAYOUT = ("model", "num_experts", "layer_ids", "num_layers", "first_moe_layer", "num_mtp_layers")


@asks(TraceReading, "reading")
@asks(PlacementWriting, "writing", only=OF_PLACEMENT)
def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Placement file of any engine; or a trace, load matrix or profile to diagnose; with --server also an "
            "id, sha256:...",
        ),
    ],
    reading: Asked,
    writing: Asked,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=WHAT,
            help="Engine, or format that a placement should have; by content by default.",
        ),
    ] = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Tell everything in a placement file that its engine would reject, or what is wrong with a recording.

    Of a recording: what each finding does to a plan, and what to do. Exit code 1 if a placement breaks a rule, or if a
    finding is an error; notes and warnings give 0. A service reads a recording that it has, or that is sent to it; what
    it can't take, it refuses.
    """
    from api.cli.outputs import Checks

    given = [
        f"--{name.replace('_', '-')}" for name in writing.nested() | ({} if engine is None else {"engine": engine})
    ]
    of_trace = [path[0] for path in reading.said if path[0] not in OF_LAYOUT]
    with Checks() as checks:
        read, placing = reading.build(checks), writing.build(checks)
        checks.run(lambda: _refuse_both(given, of_trace if server is None else ["server"]))
    if server is not None:
        _diagnose(file, read, server, as_json=as_json)
        return
    document = None if of_trace else _placement(file, asked=bool(given))
    if document is None:
        _diagnose(file, read, None, as_json=as_json)
        return
    _check_placement(file, document, engine, placing.context(read), as_json=as_json)


def _refuse_both(of_placement: list[str], of_trace: list[str]) -> None:
    """Refuse options on placements beside options on recordings: a file is one of them."""
    from traces import InputError

    if of_placement and of_trace:
        detail = f"{of_placement[0]} is for placement files, and this is for recordings."
        raise InputError.of("without_effect", f"/{of_trace[0]}", detail, "Leave one of them out.")


def _placement(file: Path, *, asked: bool) -> Document | None:
    """Return the content of a placement file; None if it is a recording."""
    from placement.exports import Document, recognise
    from placement.exports.shared.document import MAX_ARRAY_BYTES

    if not asked and (not file.is_file() or file.stat().st_size > MAX_ARRAY_BYTES):
        return None
    document = Document.of(file)
    if asked:
        return document
    form = recognise(document)
    if form is None or (form.name == MATRIX and not _places(document)):
        return None
    return document


def _places(document: Document) -> bool:
    """Whether lists of numbers place experts: in some list, every one up to the largest has a slot. Counts don't."""
    from traces import InputError

    try:
        rows = document.json
    except InputError:
        return True  # the check says what is wrong with it
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return True
    for row in rows:
        held = {item for item in row if type(item) is int and item >= 0}
        if len(held) > 1 and len(held) == max(held) + 1:
            return True
    return False


def _diagnose(file: Path, reading: TraceReading, server: str | None, *, as_json: bool) -> None:
    """Tell what the doctor finds in a recording, here or in a service."""
    from api.cli.errors import words
    from traces import Diagnosis, Finding
    from traces import check as diagnose

    loading: dict[str, Any] = reading.load_options(reading.layout())
    loading = {name: value for name, value in loading.items() if value is not None}
    found: Iterable[Any]
    if server is None:
        found = diagnose(file, **loading)
    else:
        with service_at(server) as service:
            found = service.findings(send_trace(service, file, loading)).findings
    findings = [
        Finding(code=one.code, severity=one.severity, detail=words(one.detail), remedy=words(one.remedy))
        for one in found
    ]
    if as_json:
        print_json(Diagnosis.of(str(file), findings).as_dict())
    else:
        write(_shown(file, findings))
    if any(one.severity == "error" for one in findings):
        raise typer.Exit(BAD_INPUT)


def _shown(file: Path, findings: list[Finding]) -> str:
    if not findings:
        return f"{file}: nothing is wrong with this recording."
    blocks = [f"{file}: {len(findings)} {'finding' if len(findings) == 1 else 'findings'}"]
    for one in findings:
        text = f"{one.detail} {one.remedy}"
        text = fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        blocks.append(f"{one.severity}: {one.code}\n{text}")
    return "\n\n".join(blocks)


def _check_placement(file: Path, document: Document, engine: str | None, context: Any, *, as_json: bool) -> None:
    """Tell what the engine of a placement file would reject or misread."""
    from api.cli.errors import told
    from placement.exports import recognised

    form = recognised(document) if engine is None else form_of(engine, "/engine")[0]
    found, notes = form.check(document, context)
    for violation in found.found:
        say(told(violation), "error")
    for note in notes:
        say(note, "note")
    if as_json:
        violations = [violation.as_dict() for violation in found.found]
        both = {"format": form.name, "engine": form.engine, "notes": list(notes)}
        print_json({"file": str(file), "valid": not violations, "violations": violations} | both)
    elif not found.found:
        write(f"{file}: a valid file of {form.engine} ({form.name}).")
    if found.found:
        raise typer.Exit(BAD_INPUT)

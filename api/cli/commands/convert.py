"""``moe-placement convert``: placement files and traces from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.knobs import WHAT
from api.cli.reading import TraceReading
from api.cli.writing import Force, PlacementWriting, form_of, write_placement

if TYPE_CHECKING:
    from traces import ModelLayout

__all__ = ["convert"]

TRACES = ("parquet", "jsonl", "npz")
COUNTS = ("logical_count", "lmdeploy_statistics")


@asks(TraceReading, "reading", without=("format",))
@asks(PlacementWriting, "writing")
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Placement file, or trace.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            rich_help_panel=WHAT,
            help="Placement format (see `formats`); for traces parquet, jsonl or npz; for counts "
            "logical-count (SGLang) or lmdeploy-statistics.",
        ),
    ],
    reading: Asked,
    writing: Asked,
    source_format: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="FORMAT", rich_help_panel=WHAT, help="Format of IN; found by content by default."
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Convert a placement file to another format, a trace to one of ours, or counts to those that an engine loads."""
    from api.cli.outputs import Checks, check_outputs

    with Checks() as checks:
        read, placing = reading.build(checks), writing.build(checks)
        checks.run(lambda: check_outputs({"OUT": output}, (source, reading.get("model"))))
    wanted = to.strip().lower().replace("-", "_")
    of_placement = writing.nested() | {"force": force}
    if wanted in COUNTS:
        _refuse_unused(of_placement, "Counts are written")
        model = read.layout()
        loading = read.load_options(model) | {"format": source_format}
        _convert_counts(source, output, wanted, loading, model, as_json=as_json)
        return
    if wanted in TRACES and not (wanted == "npz" and _is_placement(source, source_format)):
        _refuse_unused(of_placement, "A trace is converted")
        loading = read.load_options(read.layout()) | {"format": source_format}
        _convert_trace(source, output, wanted, loading, as_json=as_json)
        return
    rows = {"ids_beyond_experts": read.ids_beyond_experts, "layer_base": read.layer_base, "phase": read.phase}
    rows |= {"layers": read.layers, "top_k": read.top_k, "drop_dummy": read.drop_dummy_rows}
    _refuse_unused(rows, "A placement is converted")
    context = placing.context(read)
    form, engine = form_of(wanted, "/to")
    write_placement(source, source_format, context, form, engine, output, force=force, as_json=as_json)


def _refuse_unused(options: dict[str, Any], what: str) -> None:
    """Refuse options of the other kind of file: they would have no effect."""
    from traces import Violations

    found = Violations()
    for name, value in options.items():
        if value not in (None, False):
            detail = f"{what}, for which --{name.replace('_', '-')} has no use."
            found.add("option_unused", f"/{name}", detail, "Leave it out.")
    found.raise_if_any()


def _is_placement(source: Path, source_format: str | None) -> bool:
    """Whether a file is a placement rather than a trace; some names are formats of both."""
    from placement.exports import EXPORTS, Document, recognise
    from traces import InputError
    from traces.formats.registry import READERS

    if source_format is not None:
        of_placements = any(export.is_named(source_format) for export in EXPORTS)
        if of_placements != any(reader.is_named(source_format) for reader in READERS):
            return of_placements
    try:
        return recognise(Document.of(source)) is not None
    except InputError:
        return False  # a trace may be a folder, or larger than any placement


def _convert_counts(
    source: Path, output: Path, to: str, loading: dict[str, Any], model: ModelLayout | None, *, as_json: bool
) -> None:
    """Write the counts of a file, or those of a trace's tokens, for an engine."""
    from api.cli.progress import progress
    from traces import LoadCounts, Profile, check, load, save_counts

    with progress() as shown:
        shown.phase("converting")
        loaded = load(source, **loading)
        if isinstance(loaded, LoadCounts):
            counts = loaded
        else:
            profile = Profile.of(loaded)
            counts = LoadCounts.of(profile.load, layer_ids=profile.layer_ids, provenance=loaded.provenance)
        line = check(counts).line
        notes = (*(() if line is None else (line,)), *counts.provenance.notes)
        notes = (*notes, *save_counts(counts, output, format=to, model=model))  # type: ignore[arg-type]  # one of COUNTS
    for note in notes:
        say(note, "note")
    if as_json:
        facts = {"layers": counts.num_layers, "num_experts": counts.num_experts}
        told = {"file": str(output), "format": to, "source_format": counts.provenance.format}
        print_json(told | facts | {"notes": list(notes)})
        return
    write(f"{output} written: counts of {counts.num_layers} layers of {counts.num_experts} experts.")


def _convert_trace(source: Path, output: Path, to: str, loading: dict[str, Any], *, as_json: bool) -> None:
    from api.cli.progress import progress
    from traces import InputError, LoadCounts, load, save

    if output.suffix.lower() != f".{to}":
        detail = f"{output.name} does not end in .{to}, by which it will be told what it is."
        raise InputError.of("output_suffix", str(output), detail, f"Name it {output.stem}.{to}.")
    with progress() as shown:
        shown.phase("converting")
        trace = load(source, **loading)
        if isinstance(trace, LoadCounts):
            detail = f"The file ({trace.provenance.format}) holds loads without tokens, which no trace can hold."
            remedy = (
                f"Plan from the file as it is, or keep its loads with `moe-placement profile {source} -o profile.npz`, "
                "which `solve` takes as well."
            )
            raise InputError.of("counts_only", source.name, detail, remedy)
        save(trace, output)
    for note in trace.provenance.notes:
        say(note, "note")
    facts = {"layers": trace.num_layers, "num_experts": trace.num_experts, "top_k": trace.top_k}
    if as_json:
        told = {"file": str(output), "format": to, "source_format": trace.provenance.format}
        print_json(told | facts | {"notes": list(trace.provenance.notes)})
        return
    write(f"{output} written: {facts['layers']} layers of {facts['num_experts']} experts, top-{facts['top_k']}.")

"""Reading traces: one module per format, each with a `Reader`, all listed in `registry`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.decoding.sources import open_path
from traces.decoding.unpacking import UnpackLimits
from traces.formats.hints import Hints
from traces.formats.mistaken import no_such_format, refuse_by_layer, refuse_config, refuse_unrouted, unknown_content
from traces.formats.opened import Opened
from traces.formats.reader import Reader
from traces.formats.registry import READERS
from traces.formats.shared.beyond import settle_beyond
from traces.formats.shared.dummies import settle_dummies
from traces.formats.shared.dumps import merged_dumps, read_again
from traces.formats.shared.several import joined
from traces.layers import layers_of, of_layers
from traces.model.layout import ModelLayout
from traces.model.presets import layout_of
from traces.phases import of_phase
from traces.support.declared import check_word
from traces.support.errors import InputError
from traces.support.kinds import checked
from traces.support.text_marks import refuse_marks
from traces.support.words import Beyond, Phase
from traces.trace import Trace

__all__ = ["READERS", "Reader", "UnpackLimits", "load", "load_leniently"]


@checked
def load(
    path: str | Path | Sequence[str | Path],
    *,
    format: str | None = None,  # noqa: A002  the word that users expect
    num_experts: int | None = None,
    layer_ids: npt.ArrayLike | None = None,
    layers: Sequence[int] | None = None,
    model: ModelLayout | str | Path | None = None,
    top_k: int | None = None,
    drop_dummy_rows: bool = False,
    ids_beyond_experts: Beyond | None = None,
    layer_base: int | None = None,
    phase: Phase | None = None,
    unpack: UnpackLimits | None = None,
) -> Trace | LoadCounts:
    """Open a trace: a file, a folder of files that belong together, or an archive. The content tells its format.

    Nothing but metadata is read, except where the file does not state what a trace has to know: then it is read once,
    in constant memory, and the provenance has a note. The tokens are checked as they are read (`Trace.batches`).

    Parameters
    ----------
    path : path or sequence of paths
        A regular file, a folder, a ``.tar``, or any of them compressed (``.gz``, ``.zst``); several files, or a pattern
        such as ``dumps/*.pt``, are what a folder of them is. Files are opened again for every pass and must not change
        meanwhile. Archives are unpacked to a temporary folder, which is gone with the trace. Several files of counts
        that one engine dumped over time are one recording, which keeps the counts of each (`LoadCounts.dumps`); files
        of tokens are one trace, each a source of its own (column `data_source`).
    format : str, optional
        Name of a reader, out of `READERS`; hyphens are as good as underscores. By default, the one that recognises the
        content.
    num_experts : int, optional
        Experts per layer, for files that don't state it. By default, the largest id plus one.
    layer_ids : (L,) integers, optional
        Model layers, for files that don't state them. By default, 0..L-1, or what has no filler.
    layers : list of int, optional
        Only these model layers; `num_experts` is theirs then. For models whose layers have different numbers of
        experts: those of each size are planned by themselves.
    model : ModelLayout or path, optional
        The model's layers, in place of the two above: its ``config.json``, or a `ModelLayout`.
    top_k : int, optional
        Experts per token, for files that don't state it.
    drop_dummy_rows : bool
        Leave out rows that repeat the row before them, and rows of a single id, as warm-up leaves them.
    ids_beyond_experts : {"refuse", "none"}, optional
        What ids of `num_experts` and above are: an error (default), or no routed expert, so that the token has fewer
        experts in that layer. Fused shared experts and zero-computation experts have such ids.
    layer_base : {0, 1}, optional
        What the layers of a Megatron trace are counted from, where the file does not tell.
    phase : {"prefill", "decode"}, optional
        Only the tokens of one phase, of traces that have phases.
    unpack : UnpackLimits, optional
        How much an archive may hold.

    Returns
    -------
    Trace or LoadCounts
        Counts for formats that give tokens per expert without token identity.

    Raises
    ------
    InputError
        If the file can't be read, is damaged or ambiguous, or breaks a rule of its format.
    """
    return _open(
        path,
        format,
        num_experts=num_experts,
        layer_ids=layer_ids,
        layers=layers,
        model=model,
        top_k=top_k,
        drop_dummy_rows=drop_dummy_rows,
        ids_beyond_experts=ids_beyond_experts,
        layer_base=layer_base,
        phase=phase,
        unpack=unpack,
    )


def load_leniently(path: str | Path, *, format: str | None = None, **said: Any) -> Trace | LoadCounts:  # noqa: A002  as above
    """Open a trace as `load` does, and take what it refuses though its content can be told: see `Hints.lenient`."""
    return _open(path, format, lenient=True, **said)


def _open(
    path: str | Path | Sequence[str | Path],
    format: str | None,  # noqa: A002  as above
    *,
    model: ModelLayout | str | Path | None = None,
    num_experts: int | None = None,
    layers: Sequence[int] | None = None,
    top_k: int | None = None,
    drop_dummy_rows: bool = False,
    ids_beyond_experts: Beyond | None = None,
    phase: Phase | None = None,
    unpack: UnpackLimits | None = None,
    **said: Any,
) -> Trace | LoadCounts:
    if isinstance(model, str | Path):
        model = layout_of(model)
    hints = Hints(
        num_experts=num_experts,
        model=model,
        layers=layers_of(layers),
        top_k=top_k,
        drop_dummy_rows=drop_dummy_rows,
        ids_beyond_experts=check_word("ids_beyond_experts", ids_beyond_experts, Beyond),
        unpack=unpack or UnpackLimits(),
        **said,
    )
    check_word("phase", phase, Phase)
    if model is not None and num_experts not in (None, model.num_experts) and model.num_experts is not None:
        detail = f"`num_experts` is {num_experts}, but the model has {model.num_experts}."
        raise InputError.of("num_experts_differ", "/num_experts", detail, "Leave `num_experts` out.")
    named = None
    if format is not None:
        named = next((reader for reader in READERS if reader.is_named(format)), None)
        if named is None:
            raise no_such_format(format, READERS)
    source = open_path(path, hints.unpack)
    if isinstance(source, TraceFile):
        loaded = _open_file(source, named, hints)
    else:
        loaded = _open_bundle(source, named, hints)
        provenance = replace(loaded.provenance, source=source.name, notes=(*source.notes, *loaded.provenance.notes))
        loaded = replace(loaded, provenance=provenance)
    loaded = of_layers(settle_beyond(loaded, hints), hints.layers, num_experts)
    if isinstance(loaded, Trace) and top_k not in (None, loaded.top_k):
        detail = f"The trace has top-{loaded.top_k}, not top-{top_k}."
        raise InputError.of("top_k_differ", loaded.provenance.source, detail, "Leave `top_k` out.")
    if isinstance(loaded, Trace) and hints.experts_per_token not in (None, loaded.top_k):
        note = (
            f"The trace has top-{loaded.top_k}, the model top-{hints.experts_per_token}: is it this model's, and whole?"
        )
        provenance = replace(loaded.provenance, notes=(*loaded.provenance.notes, note))
        loaded = replace(loaded, provenance=provenance)
    loaded = of_phase(settle_dummies(loaded, drop_dummy_rows), phase)
    if hints.lenient:
        return loaded
    hinted = {item.name: getattr(hints, item.name) for item in fields(hints) if item.name != "lenient"}
    options = hinted | {"format": format, "phase": phase}
    where = Path(path).absolute() if isinstance(path, str | Path) else [Path(item).absolute() for item in path]
    again = partial(load, where, **options)
    if not isinstance(loaded, Trace):
        return replace(loaded, dumps=read_again(loaded.dumps, again))
    opened = Opened(again=again, trace=loaded)
    return replace(loaded, read=opened.read, hash_source=opened.sha256)


def _open_file(file: TraceFile, named: Reader | None, hints: Hints) -> Trace | LoadCounts:
    refuse_marks(file.head, file.name)
    refuse_config(file)
    if named is None:
        refuse_by_layer(file)
    reader = named or next((reader for reader in READERS if reader.sniff(file)), None)
    if reader is None:
        refuse_marks(file.head, file.name, utf8=True)
        refuse_unrouted(file)
        raise unknown_content(file, READERS)
    return _of_engine(reader, hints, partial(reader.open, file, hints))


def _of_engine(reader: Reader, hints: Hints, open_it: Callable[[], Trace | LoadCounts]) -> Trace | LoadCounts:
    if hints.layer_base is not None and not reader.two_bases:
        detail = f"Layers of {reader.name} are counted in one way only."
        raise InputError.of("option_unused", "/layer_base", detail, "Leave it out.")
    loaded = open_it()
    return replace(loaded, provenance=replace(loaded.provenance, engine=loaded.provenance.engine or reader.engine))


def _open_bundle(bundle: Bundle, named: Reader | None, hints: Hints) -> Trace | LoadCounts:
    for file in bundle.files:
        refuse_marks(file.head, file.name)
    if named is not None:
        if named.open_bundle is not None:
            return _of_engine(named, hints, partial(named.open_bundle, bundle, hints))
        if len(bundle.files) == 1:
            return _of_engine(named, hints, partial(named.open, bundle.files[0], hints))
        if (merged := _dumps(bundle, [named] * len(bundle.files), hints)) is not None:
            return merged
        if (one := _joined(bundle, [named] * len(bundle.files), hints)) is not None:
            return one
        detail = f"{len(bundle.files)} files, where format {named.name} is a single one."
        raise InputError.of("is_a_folder", bundle.name, detail, "Name one of the files.")
    for reader in READERS:
        if reader.sniff_bundle is not None and reader.open_bundle is not None and reader.sniff_bundle(bundle):
            return _of_engine(reader, hints, partial(reader.open_bundle, bundle, hints))
    if len(bundle.files) == 1:
        return _open_file(bundle.files[0], None, hints)
    for file in bundle.files:
        refuse_marks(file.head, file.name, utf8=True)
    known = [next((reader for reader in READERS if reader.sniff(file)), None) for file in bundle.files]
    if (merged := _dumps(bundle, known, hints)) is not None:
        return merged
    if (one := _joined(bundle, known, hints)) is not None:
        return one
    several = [reader for reader in READERS if reader.open_bundle is not None]
    detail = f"The {len(bundle.files)} files, {bundle.members[0][:60]!r} among them, are no trace together."
    remedy = f"Name a single file, or files of one of these formats: {', '.join(reader.name for reader in several)}."
    raise InputError.of("is_a_folder", bundle.name, detail, remedy)


def _dumps(bundle: Bundle, readers: Sequence[Reader | None], hints: Hints) -> LoadCounts | None:
    """Return the counts of files that are dumps over time; None where they are no counts of one format."""
    found = {reader.name: reader for reader in readers if reader is not None}
    if None in readers or len(found) != 1:
        return None
    (reader,) = found.values()

    def open_one(file: TraceFile) -> LoadCounts:
        loaded = reader.open(file, hints)
        if isinstance(loaded, Trace):
            raise InputError.of("is_a_folder", file.name, "It holds tokens.", "Name a single file.")
        return loaded

    if isinstance(reader.open(bundle.files[0], hints), Trace):
        return None
    merged = _of_engine(reader, hints, partial(merged_dumps, bundle, open_one))
    assert isinstance(merged, LoadCounts)
    return merged


def _joined(bundle: Bundle, readers: Sequence[Reader | None], hints: Hints) -> Trace | None:
    """Return the tokens of files that are traces by themselves; None where some are none."""
    opened = list[Trace]()
    for reader, file in zip(readers, bundle.files, strict=True):
        if reader is None:
            return None
        loaded = _of_engine(reader, hints, partial(reader.open, file, hints))
        if not isinstance(loaded, Trace):
            return None
        opened.append(loaded)
    return joined(bundle, opened)

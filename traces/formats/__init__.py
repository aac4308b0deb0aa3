"""Reading traces: one module per format, each with a `Reader`, all listed in `registry`."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.decoding.sources import open_path
from traces.decoding.unpacking import UnpackLimits
from traces.formats.mistaken import no_such_format, refuse_config, refuse_unrouted, unknown_content
from traces.formats.opened import Opened
from traces.formats.reader import Hints, Reader
from traces.formats.registry import READERS
from traces.formats.shared.dummies import settle_dummies
from traces.model.config import load_model_config
from traces.model.layout import ModelLayout
from traces.support.errors import InputError
from traces.support.kinds import checked
from traces.support.text_marks import refuse_marks
from traces.trace import Trace

__all__ = ["READERS", "Reader", "UnpackLimits", "load"]


@checked
def load(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002  the word that users expect
    num_experts: int | None = None,
    layer_ids: npt.ArrayLike | None = None,
    model: ModelLayout | str | Path | None = None,
    top_k: int | None = None,
    drop_dummy_rows: bool = False,
    unpack: UnpackLimits | None = None,
) -> Trace | LoadCounts:
    """Open a trace: a file, a folder of files that belong together, or an archive. The content tells its format.

    Nothing but metadata is read, except where the file does not state what a trace has to know: then it is read once,
    in constant memory, and the provenance has a note. The tokens are checked as they are read (`Trace.batches`).

    Parameters
    ----------
    path : path
        A regular file, a folder, a ``.tar``, or any of them compressed (``.gz``, ``.zst``). Files are opened again for
        every pass and must not change meanwhile. Archives are unpacked to a temporary folder, which is gone with the
        trace.
    format : str, optional
        Name of a reader, out of `READERS`; hyphens are as good as underscores. By default, the one that recognises the
        content.
    num_experts : int, optional
        Experts per layer, for files that don't state it. By default, the largest id plus one.
    layer_ids : (L,) integers, optional
        Model layers, for files that don't state them. By default, 0..L-1, or what has no filler.
    model : ModelLayout or path, optional
        The model's layers, in place of the two above: its ``config.json``, or a `ModelLayout`.
    top_k : int, optional
        Experts per token, for files that don't state it.
    drop_dummy_rows : bool
        Leave out rows that repeat the row before them, and rows of a single id, as warm-up leaves them.
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
    if isinstance(model, str | Path):
        model = load_model_config(model)
    hints = Hints(
        num_experts=num_experts,
        layer_ids=layer_ids,
        model=model,
        top_k=top_k,
        drop_dummy_rows=drop_dummy_rows,
        unpack=unpack or UnpackLimits(),
    )
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
    if isinstance(loaded, Trace) and top_k not in (None, loaded.top_k):
        detail = f"The trace has top-{loaded.top_k}, not top-{top_k}."
        raise InputError.of("top_k_differ", loaded.provenance.source, detail, "Leave `top_k` out.")
    if isinstance(loaded, Trace) and hints.experts_per_token not in (None, loaded.top_k):
        note = (
            f"The trace has top-{loaded.top_k}, the model top-{hints.experts_per_token}: is it this model's, and whole?"
        )
        provenance = replace(loaded.provenance, notes=(*loaded.provenance.notes, note))
        loaded = replace(loaded, provenance=provenance)
    loaded = settle_dummies(loaded, drop_dummy_rows)
    if not isinstance(loaded, Trace):
        return loaded
    options = {item.name: getattr(hints, item.name) for item in fields(hints)} | {"format": format}
    opened = Opened(again=partial(load, Path(path).absolute(), **options), trace=loaded)
    return replace(loaded, read=opened.read, hash_source=opened.sha256)


def _open_file(file: TraceFile, named: Reader | None, hints: Hints) -> Trace | LoadCounts:
    refuse_marks(file.head, file.name)
    refuse_config(file)
    reader = named or next((reader for reader in READERS if reader.sniff(file)), None)
    if reader is None:
        refuse_marks(file.head, file.name, utf8=True)
        refuse_unrouted(file)
        raise unknown_content(file, READERS)
    return _of_engine(reader, reader.open(file, hints))


def _of_engine(reader: Reader, loaded: Trace | LoadCounts) -> Trace | LoadCounts:
    return replace(loaded, provenance=replace(loaded.provenance, engine=reader.engine))


def _open_bundle(bundle: Bundle, named: Reader | None, hints: Hints) -> Trace | LoadCounts:
    for file in bundle.files:
        refuse_marks(file.head, file.name)
    if named is not None:
        if named.open_bundle is not None:
            return _of_engine(named, named.open_bundle(bundle, hints))
        if len(bundle.files) == 1:
            return _of_engine(named, named.open(bundle.files[0], hints))
        detail = f"{len(bundle.files)} files, where format {named.name} is a single one."
        raise InputError.of("is_a_folder", bundle.name, detail, "Name one of the files.")
    for reader in READERS:
        if reader.sniff_bundle is not None and reader.open_bundle is not None and reader.sniff_bundle(bundle):
            return _of_engine(reader, reader.open_bundle(bundle, hints))
    if len(bundle.files) == 1:
        return _open_file(bundle.files[0], None, hints)
    for file in bundle.files:
        refuse_marks(file.head, file.name, utf8=True)
    several = [reader for reader in READERS if reader.open_bundle is not None]
    detail = f"The {len(bundle.files)} files, {bundle.members[0][:60]!r} among them, are no trace together."
    remedy = f"Name a single file, or files of one of these formats: {', '.join(reader.name for reader in several)}."
    raise InputError.of("is_a_folder", bundle.name, detail, remedy)

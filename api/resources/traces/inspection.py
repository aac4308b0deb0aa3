"""What a full read of an upload finds out, and the trace as later readers open it.

`inspect` runs in a helper process: a file that makes a reader run out of memory takes the helper with it, not the
service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from api.resources.layers import layout
from solvers.sources.source import Source, open_source, told_while_read
from traces import InputError, LoadCounts, Profile, Trace, Violation
from traces.formats import UnpackLimits
from traces.profile.sample import TokenSample
from traces.profile.sequences import SEQUENCE_BUCKETS
from traces.profile.windows import WindowedLoad
from traces.repeats import Repeats

__all__ = ["inspect", "open_stored", "outline", "warm_up"]


def inspect(path: Path, shown: str, hints: Mapping[str, Any], max_unpacked_bytes: int | None = None) -> dict[str, Any]:
    """Read a file from start to end.

    Parameters
    ----------
    path : Path
    shown : str
        How to call the file in errors.
    hints : mapping
        format, num_experts, layer_ids, layers, top_k, model_layers, first_moe_layer, moe_layers, drop_dummy_rows,
        ids_beyond_experts, layer_base, phase, as far as the client gave them.
    max_unpacked_bytes : int, optional
        How much an archive may hold.

    Returns
    -------
    dict
        JSON-ready facts about the trace; `outline` and `open_stored` work from them.

    Raises
    ------
    InputError
        If the file is not a valid trace.
    """
    try:
        limits = {} if max_unpacked_bytes is None else {"unpack": UnpackLimits(max_bytes=max_unpacked_bytes)}
        source = open_source(path, **_load_options(hints), **limits)
        facts = _facts_of_trace(source) if isinstance(source, Trace) else _facts_of_statistics(source)
    except InputError as error:
        raise _rename(error, path, shown) from None
    return {**facts, "layer_ids": source.layer_ids.tolist(), "num_experts": source.num_experts, "hints": dict(hints)}


def open_stored(path: Path, trace_id: str, name: str | None, facts: Mapping[str, Any]) -> Source:
    """Open a trace from the store, read as it was when it was uploaded.

    Raises
    ------
    InputError
    """
    shown = name or trace_id
    if not path.exists():
        detail = f"The service has lost the file of trace {trace_id}."
        raise InputError.of("trace_lost", "/trace", detail, "Upload it again.")
    try:
        source = open_source(path, **_load_options(facts["hints"]))
    except InputError as error:
        raise _rename(error, path, shown) from None
    if isinstance(source, Profile):
        return source
    return replace(source, provenance=replace(source.provenance, source=shown))


def warm_up() -> None:
    """Do nothing; importing this module has loaded what `inspect` needs."""


def _load_options(hints: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `traces.load`; those on the model's layers are one there."""
    options = dict(hints)
    said = [options.pop(name, None) for name in ("model_layers", "first_moe_layer", "moe_layers")]
    model = layout(*said)
    return options if model is None else options | {"model": model}


def outline(facts: Mapping[str, Any]) -> Profile:
    """Return a profile with the axes of a trace and made-up counts: to check a request without reading the trace."""
    layers, experts = np.array(facts["layer_ids"], dtype=np.int64), facts["num_experts"]
    top_k = facts["top_k"] or 1
    zero = np.zeros((), np.int64)
    pairs = facts["has_affinity"]
    sample = None
    if facts["has_sample"]:
        sample = TokenSample(
            capacity=1,
            topk_ids=np.tile(np.arange(top_k, dtype=np.int16), (1, len(layers), 1)),
            rows=np.zeros(1, np.int64),
            seq_id=np.array([0 if facts["has_seq_id"] else -1]),
            source_rank=np.array([0 if facts["source_ranks"] else -1], dtype=np.int32),
            priority=np.zeros(1, np.uint64),
        )
    ranks = facts["source_ranks"]
    # Facts of earlier versions do not say it.
    sequences = facts.get("has_sequence_load", facts["kind"] == "trace" and facts["has_seq_id"])
    windows = None
    counted = pairs and facts["kind"] != "counts"  # statistics may have pairs, but nothing else that takes tokens
    if counted:
        load = np.broadcast_to(np.ones((), np.int64), (2, len(layers), experts))
        two, source = np.arange(2), np.zeros(2, np.uint64)
        windows = WindowedLoad(
            window_tokens=1, limit=2, source=source, index=two, tokens=np.ones(2, np.int64), load=load
        )
    return Profile(
        layer_ids=layers,
        num_experts=experts,
        top_k=top_k,
        tokens=1,
        load=np.ones((len(layers), experts)),
        # Views of one number: they have the shape, and take no memory.
        affinity=np.broadcast_to(zero, (len(layers) - 1, experts, experts)) if pairs else None,
        coactivation=np.broadcast_to(zero, (len(layers), experts, experts)) if counted else None,
        distant={},
        windows=windows,
        sequence_load=np.broadcast_to(np.ones((), np.int64), (SEQUENCE_BUCKETS, len(layers), experts))
        if sequences
        else None,
        source_load=np.broadcast_to(zero, (ranks, len(layers), experts)) if ranks else None,
        sample=sample,
        sources=(),
    )


def _facts_of_trace(trace: Trace) -> dict[str, Any]:
    tokens, ranks, known_sequences = 0, 0, "seq_id" in trace.columns
    used, repeats = np.zeros(trace.num_layers, dtype=bool), Repeats()
    looked, diagnosis = told_while_read(trace)
    assert isinstance(looked, Trace)
    for batch in looked.batches():
        repeats.mask(batch.topk_ids)
        tokens += len(batch)
        if not used.all():
            used |= (batch.topk_ids >= 0).any(axis=(0, 2))
        if batch.source_rank is not None:
            ranks = max(ranks, int(batch.source_rank.max(initial=-1)) + 1)
        if batch.seq_id is not None:
            known_sequences = known_sequences and int(batch.seq_id.min(initial=0)) >= 0
    place = trace.provenance.source
    if not tokens:
        raise InputError.of("zero_tokens", place, "The trace holds no tokens.", "Check the recording.")
    if not used.all():
        detail = f"No token was routed in layer(s) {trace.layer_ids[~used].tolist()[:16]}."
        raise InputError.of("zero_tokens", place, detail, "Record tokens in every layer, or leave the layer out.")
    return {
        "kind": "trace",
        "format": trace.provenance.format,
        "engine": trace.engine,
        "num_tokens": tokens,
        "top_k": trace.top_k,
        "columns": sorted(trace.columns),
        "notes": [*repeats.notes(trace), *diagnosis()],
        "has_affinity": True,
        "has_sample": True,
        "has_seq_id": known_sequences,
        "has_sequence_load": "seq_id" in trace.columns,
        "source_ranks": ranks,
    }


def _facts_of_statistics(source: LoadCounts | Profile) -> dict[str, Any]:
    profile = Profile.of(source) if isinstance(source, LoadCounts) else source
    counts = isinstance(source, LoadCounts)
    sample = profile.sample
    return {
        "kind": "counts" if counts else "profile",
        "format": source.provenance.format if isinstance(source, LoadCounts) else "profile",
        "engine": source.engine,
        "num_tokens": None if counts else profile.tokens,
        "top_k": None if counts else profile.top_k,
        "columns": [],
        "notes": [*(source.provenance.notes if isinstance(source, LoadCounts) else ()), *told_while_read(source)[1]()],
        "dumps": len(source.dumps) if isinstance(source, LoadCounts) else 0,
        "has_affinity": profile.affinity is not None,
        "has_sample": sample is not None and len(sample) > 0,
        "has_seq_id": sample is not None and bool((sample.seq_id >= 0).all()),
        "has_sequence_load": profile.sequence_load is not None,
        "source_ranks": 0 if profile.source_load is None else len(profile.source_load),
    }


def _rename(error: InputError, path: Path, shown: str) -> InputError:
    """Replace the service's own path in the violations by the name that the client knows."""

    def renamed(text: str) -> str:
        return text.replace(str(path), shown).replace(path.name, shown)

    return InputError(
        tuple(
            Violation(
                code=item.code, pointer=renamed(item.pointer), detail=renamed(item.detail), remedy=renamed(item.remedy)
            )
            for item in error.listed
        ),
        error.more,
        stopped=error.stopped,
    )

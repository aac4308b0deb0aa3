"""Some of the layers: routers of one model may have different numbers of experts, so each size is planned by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from traces.batch import Batch
from traces.counts import CountsDump, LoadCounts
from traces.support.errors import InputError
from traces.support.shown import runs
from traces.trace import BATCH_TOKENS, Trace

__all__ = ["layers_of", "of_layers"]

INFERRED = "`num_experts` is not given; inferred"


def layers_of(layers: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the layers that the caller chooses, in order.

    Raises
    ------
    InputError
        If they are no layers, or none.
    """
    if layers is None:
        return None
    given = np.asarray(layers)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu" or (given < 0).any():
        detail = f"Expected model layers; got {layers!r:.60}."
        raise InputError.of("layers_range", "/layers", detail, "Give a list such as [3, 4, 5], or leave it out.")
    return tuple(np.unique(given).tolist())


def of_layers(loaded: Trace | LoadCounts, layers: Sequence[int] | None, num_experts: int | None) -> Trace | LoadCounts:
    """Return some of the layers, all where None is given.

    Parameters
    ----------
    loaded : Trace or LoadCounts
    layers : sequence of int or None
        Model layers.
    num_experts : int or None
        Experts of these layers, which may have fewer than others. None: as the file says; where it does not say it, the
        largest id of these layers plus one.

    Raises
    ------
    InputError
        If there are no such layers, or they have more experts.
    """
    if layers is None:
        return loaded
    chosen = np.array(layers)
    place = loaded.provenance.source
    if unknown := np.setdiff1d(chosen, loaded.layer_ids).tolist():
        detail = f"{place} has layers {runs(loaded.layer_ids.tolist())}, and not {runs(unknown)}."
        raise InputError.of("unknown_layers", "/layers", detail, "Choose some of its layers.")
    at = np.flatnonzero(np.isin(loaded.layer_ids, chosen))
    note = f"Layers {runs(list(layers))} only, on request."
    if isinstance(loaded, LoadCounts):
        return _of_counts(loaded, at, num_experts, note)
    read, hash_source = loaded.read, loaded.hash_source

    def read_chosen(max_tokens: int) -> Iterator[Batch]:
        for batch in read(max_tokens):
            weights = batch.gate_weights
            yield replace(
                batch, topk_ids=batch.topk_ids[:, at], gate_weights=None if weights is None else weights[:, at]
            )

    experts, notes = loaded.num_experts if num_experts is None else num_experts, loaded.provenance.notes
    if loaded.provenance.experts_inferred and num_experts is None:
        largest = max((int(batch.topk_ids.max()) for batch in read_chosen(BATCH_TOKENS) if len(batch)), default=-1)
        experts = min(max(largest + 1, loaded.top_k), loaded.num_experts)
        kept = (told for told in notes if not told.startswith(INFERRED))
        notes = (*kept, f"{INFERRED} as {experts} from the largest id of these layers.")
    return replace(
        loaded,
        layer_ids=loaded.layer_ids[at],
        num_experts=experts,
        read=read_chosen,
        hash_source=lambda: hashlib.sha256(f"{hash_source()}|{note}{experts}".encode()).hexdigest(),
        provenance=replace(loaded.provenance, notes=notes).noting(note),
    )


def _of_counts(counts: LoadCounts, at: npt.NDArray[np.intp], num_experts: int | None, note: str) -> LoadCounts:
    stop = counts.num_experts if num_experts is None else num_experts
    if counts.load[at][:, stop:].any():
        layers = counts.layer_ids[at][counts.load[at][:, stop:].any(axis=1)].tolist()
        detail = f"Layers {runs(layers)} have counts of experts from {stop} on."
        raise InputError.of("num_experts_differ", "/num_experts", detail, "Correct `num_experts`, or `layers`.")
    load = np.ascontiguousarray(counts.load[at][:, :stop])
    load.flags.writeable = False
    together = len(at) > 1 and at[-1] - at[0] == len(at) - 1
    pairs = counts.affinity[at[:-1]][:, :stop, :stop] if together and counts.affinity is not None else None
    return replace(
        counts,
        load=load,
        layer_ids=counts.layer_ids[at],
        provenance=counts.provenance.noting(note),
        digest=f"sha256:{hashlib.sha256(f'{counts.digest}|{note}{stop}'.encode()).hexdigest()}",
        affinity=pairs,
        source_load=None if counts.source_load is None else counts.source_load[:, at, :stop],
        unrecorded=(),
        dumps=tuple(_of_dump(dump, at, stop) for dump in counts.dumps),
    )


def _of_dump(dump: CountsDump, at: npt.NDArray[np.intp], stop: int) -> CountsDump:
    def read() -> npt.NDArray[np.float64]:
        return np.ascontiguousarray(dump.read()[at][:, :stop])

    return replace(dump, read=read)

"""Several files of tokens that are one trace: data sets, tasks or days, each of which is a source of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from traces.batch import Batch
from traces.decoding.bundles import Bundle
from traces.support.errors import Violations
from traces.support.shown import runs
from traces.trace import Trace

__all__ = ["joined"]

SEQUENCE_BITS = 47  # of a sequence's id that are its own; the file's number is above them
SHOWN = 8


def joined(bundle: Bundle, traces: Sequence[Trace]) -> Trace:
    """Return the tokens of all files, one file after the other; the column `data_source` has the number of the file.

    Sequences of different files stay apart: a file's number is part of `seq_id`.

    Parameters
    ----------
    bundle : Bundle
    traces : sequence of Trace
        Of its files, in order.

    Raises
    ------
    InputError
        If the files have other layers, experts or experts per token, or are the same.
    """
    _check(bundle, traces)
    first = traces[0]
    shared = frozenset.intersection(*(trace.columns for trace in traces))
    left = sorted(frozenset.union(*(trace.columns for trace in traces)) - shared)
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(bundle.members[:SHOWN]))
    notes = [note for trace in traces for note in trace.provenance.notes]
    notes.append(
        f"{len(traces)} files are one trace, each a source of its own (`data_source`): {listed}"
        f"{', ...' if len(traces) > SHOWN else ''}."
    )
    if left:
        notes.append(f"Columns that only some of the files have were left out: {', '.join(left)}.")
    counts = [trace.num_tokens for trace in traces]
    provenance = replace(
        first.provenance,
        source=bundle.name,
        engine=first.provenance.engine if len({trace.engine for trace in traces}) == 1 else None,
        notes=tuple(dict.fromkeys(notes)),
        experts_inferred=all(trace.provenance.experts_inferred for trace in traces),
    )
    return replace(
        first,
        num_experts=max(trace.num_experts for trace in traces),
        num_tokens=None if None in counts else sum(count for count in counts if count is not None),
        read=_Joined(traces=tuple(traces), columns=shared).read,
        hash_source=bundle.sha256,
        columns=shared | {"data_source"},
        provenance=provenance,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Joined:
    traces: tuple[Trace, ...]
    columns: frozenset[str]

    def read(self, max_tokens: int) -> Iterator[Batch]:
        """Yield the batches, file by file."""
        start = 0
        for number, trace in enumerate(self.traces):
            stop = start
            for batch in trace.read(max_tokens):
                if not len(batch):
                    continue
                kept: dict[str, Any] = {name: getattr(batch, name) for name in self.columns}
                if "seq_id" in kept:
                    kept["seq_id"] = np.asarray(kept["seq_id"], np.int64) ^ (number << SEQUENCE_BITS)
                kept = {"data_source": np.full(len(batch), number, np.int32)} | kept
                rows = batch.rows + start
                stop = max(stop, int(rows[-1]) + 1)
                yield Batch(topk_ids=batch.topk_ids, rows=rows, **kept)
            start = stop


def _check(bundle: Bundle, traces: Sequence[Trace]) -> None:
    found, first = Violations(), traces[0]
    lengths = Counter(file.size for file in bundle.files)
    sizes: dict[int, dict[str, str]] = {}
    for member, file, trace in zip(bundle.members, bundle.files, traces, strict=True):
        place = f"{bundle.name}/{member}"
        own = (trace.layer_ids.tolist(), trace.top_k)
        stated = (trace.provenance.experts_inferred, first.provenance.experts_inferred)
        if own != (first.layer_ids.tolist(), first.top_k) or (
            trace.num_experts != first.num_experts and stated != (True, True)
        ):
            detail = (
                f"It has layers {runs(trace.layer_ids.tolist())}, {trace.num_experts} experts, top-{trace.top_k}; "
                f"{bundle.members[0]} has layers {runs(first.layer_ids.tolist())}, {first.num_experts} experts, "
                f"top-{first.top_k}."
            )
            found.add("files_differ", place, detail, "Give the files of one model, or a single one.")
        alike = sizes.setdefault(file.size, {})
        if lengths[file.size] > 1:
            digest = file.sha256()
            if digest in alike:
                detail = f"It is the same as {alike[digest]}: its tokens would count twice."
                found.add("files_alike", place, detail, "Leave it out.")
            alike.setdefault(digest, member)
    found.raise_if_any()

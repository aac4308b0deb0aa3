"""Megatron router traces: ``router_trace_rank{r}.jsonl``, one record per step and layer, one file per rank.

    {"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 3, "rank": 0, "num_tokens": 128, "topk": 8,
     "top_indices": [[12, 45, ...], ...]}

The layers of a step are joined to tokens, whose `source_rank` is the rank of the file. Blocks of multi-token prediction
(``mtp``) predict from other tokens than the decoder routes, so they are left out.

References
----------
``--moe-routing-trace-path`` of Megatron-LM, ``megatron/core/transformer/moe/router_trace.py``; hooks since 0.19.0.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from traces.batch import Batch
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile, tokens_per_batch
from traces.decoding.json_objects import first_keys
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.megatron.copies import without_copies
from traces.formats.megatron.layers import settle_base
from traces.formats.megatron.steps import RankFile, joined, steps_of
from traces.formats.reader import Reader
from traces.support.errors import InputError, Violations
from traces.trace import Trace

__all__ = ["READER"]

STAGES = (
    "Layers are numbered as in the files. With pipeline parallelism each stage counts from 0, and stages look alike: "
    "give the ranks of one stage, and its layers as `layer_ids`, or `model`."
)
KEYS = {"step", "layer", "num_tokens", "top_indices"}


@dataclass
class _Rank:
    """What the first pass finds in the file of one rank."""

    file: TraceFile
    number: int = -1
    found: RankFile = field(default_factory=RankFile)
    tokens_by_layers: Counter[frozenset[int]] = field(default_factory=Counter)
    steps_by_layers: Counter[frozenset[int]] = field(default_factory=Counter)
    inconsistent: int = 0
    largest_id: int = -1
    content: str = ""

    def scan(self) -> None:
        """Read the file once."""
        digest = hashlib.sha256()
        for step in steps_of(self.file, self.found):
            self.number = step.rank
            layers = frozenset(step.parts)
            if step.consistent:
                self.tokens_by_layers[layers] += step.tokens
                self.steps_by_layers[layers] += 1
            else:
                self.inconsistent += 1
            for layer, parts in sorted(step.parts.items()):
                for ids in parts:
                    self.largest_id = max(self.largest_id, int(ids.max(initial=-1)))
                    digest.update(f"{step.number} {layer} {ids.shape}".encode() + ids.tobytes())
        self.content = digest.hexdigest()

    @property
    def layers(self) -> frozenset[int]:
        """All layers of the file."""
        return frozenset().union(*self.steps_by_layers) if self.steps_by_layers else frozenset()


def open_bundle(bundle: Bundle, hints: Hints) -> Trace:
    """Open the files of all ranks; they are read once, to find layers, tokens and the largest id."""
    ranks = [_Rank(file=file) for file in bundle.files if first_keys(file) >= KEYS]
    notes = [f"{len(bundle.files) - len(ranks)} other files were left out."] * (len(ranks) < len(bundle.files))
    for part in ranks:
        part.scan()
    ranks = sorted((part for part in ranks if part.steps_by_layers or part.inconsistent), key=lambda part: part.number)
    if not ranks:
        raise InputError.of("zero_tokens", bundle.name, "There is no decoder record.", "Check the recording.")
    layers = _common_layers(ranks, bundle.name)
    there = {part.number for part in ranks}
    ranks, repeated = without_copies(ranks, "tokens")
    complete = frozenset(layers)
    tokens = sum(part.tokens_by_layers[complete] for part in ranks)
    top_k = ranks[0].found.top_k
    row_bytes = len(layers) * top_k * 4
    tokens_per_batch(1, row_bytes, bundle.name)

    def read(max_tokens: int) -> Iterator[Batch]:
        size, start = tokens_per_batch(max_tokens, row_bytes, bundle.name), 0
        for part in ranks:
            for step in steps_of(part.file, RankFile()):
                for whole in joined(step, layers):
                    for first in range(0, len(whole), size):
                        ids = whole[first : first + size].copy()
                        yield Batch(
                            topk_ids=ids,
                            rows=np.arange(start, start + len(ids)),
                            source_rank=np.full(len(ids), part.number, np.int32),
                        )
                        start += len(ids)

    largest = max(part.largest_id for part in ranks)
    given = hints.layer_ids is not None
    if given and hints.layer_base is not None:
        detail = "`layer_ids` name the layers, so it does not matter what the files count from."
        raise InputError.of("option_unused", "/layer_base", detail, "Leave it out, or leave out `layer_ids`.")
    model = hints.model
    numbered = layers if given else [layer - settle_base(layers, hints, bundle.name) for layer in layers]
    if not given and model is not None and tuple(numbered) != model.moe_layers:
        detail = f"Layers {layers[:8]} are recorded, the model's are {list(model.moe_layers[:8])}."
        remedy = "A pipeline stage counts its layers from 0: name those of this stage as `layer_ids`."
        raise InputError.of("layers_differ", bundle.name, detail, remedy)
    axes = Axes.settle(bundle, hints, len(layers), lambda: largest, layer_ids=None if given else np.array(numbered))
    if numbered != layers and not given:
        notes.append(
            f"Layers {layers[0]}..{layers[-1]} of the files, counted from 1, are {numbered[0]}.. of the model."
        )
    notes += [*repeated, *_notes(ranks, complete)]
    if not given and model is None:
        notes.append(STAGES)
    trace = axes.trace(
        bundle,
        "megatron",
        tuple(notes),
        top_k=top_k,
        num_tokens=tokens,
        columns=frozenset({"source_rank"}),
        read=read,
    )
    return replace(trace, provenance=trace.provenance.of_ranks(there))


def _common_layers(ranks: list[_Rank], name: str) -> list[int]:
    """Return the layers of the ranks, which must be the same."""
    found = Violations()
    seen: dict[int, str] = {}
    for part in ranks:
        if part.number in seen:
            detail = f"Rank {part.number} is also in {seen[part.number]}."
            found.add("duplicate_rank", part.file.name, detail, "Give one file per rank, of one run.")
        seen[part.number] = part.file.name
        if part.found.top_k != ranks[0].found.top_k:
            detail = f"Top-{part.found.top_k}, where {ranks[0].file.name} has top-{ranks[0].found.top_k}."
            found.add("records_differ", part.file.name, detail, "Give the ranks of one run.")
        if part.layers != ranks[0].layers:
            found.add(
                "layers_differ",
                part.file.name,
                f"Layers {sorted(part.layers)[:8]}..., where {ranks[0].file.name} has {sorted(ranks[0].layers)[:8]}...",
                "Tokens can't be followed through pipeline stages: record with one stage, or give the ranks of one.",
            )
    found.raise_if_any()
    if not ranks[0].layers:
        raise InputError.of("zero_tokens", name, "No step has the same tokens in all its layers.", "Record it again.")
    return sorted(ranks[0].layers)


def _notes(ranks: list[_Rank], layers: frozenset[int]) -> Iterator[str]:
    cut = sum(part.inconsistent + part.steps_by_layers.total() - part.steps_by_layers[layers] for part in ranks)
    if cut:
        yield f"{cut} steps lack layers, or tokens in a layer, and were left out."
    if mtp := sum(part.found.mtp for part in ranks):
        yield f"{mtp} records of multi-token prediction (block mtp) were left out: they route other tokens."
    if other := sum(part.found.other_stages for part in ranks):
        yield f"{other} records of other stages than pre_dispatch were left out."


READER = Reader(
    name="megatron",
    engine="megatron",
    content="Megatron router traces, router_trace_rank{r}.jsonl",
    sniff=lambda file: first_keys(file) >= KEYS,
    open=lambda file, hints: open_bundle(Bundle.single(file), hints),
    sniff_bundle=lambda bundle: any(first_keys(file) >= KEYS for file in bundle.files),
    open_bundle=open_bundle,
    two_bases=True,
)

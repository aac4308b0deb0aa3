"""TensorRT-LLM's expert statistics: a folder of ``meta_info.json`` and ``rank{r}.safetensors``.

Each tensor, named ``{iteration}_{layer}``, counts the tokens of every logical expert in one iteration, (E,); ranks are
summed. Some branches also write the experts of every token, (tokens, top-k), to ``rank{r}_raw.safetensors`` or
``token_selected_experts_rank{r}.safetensors``: these are read as tokens, and the counts are then not needed.

References
----------
``EXPERT_STATISTIC_PATH`` of TensorRT-LLM, ``examples/wide_ep/ep_load_balancer``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from traces.batch import Batch
from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile, guarded, tokens_per_batch
from traces.decoding.tensor_files import TensorFile, is_safetensors
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.counts import MAX_CELLS, checked_counts
from traces.formats.tensorrt_llm.ranks import RankTensors, ranks_of, same_tensors, without_copies
from traces.support.errors import InputError, Violations
from traces.trace import Trace

__all__ = ["READER"]

META_KEYS = ("num_experts", "num_experts_per_token")
META_BYTES = 1 << 20
SUFFIX = ".safetensors"
SHOWN_FILES = 4


def open_bundle(bundle: Bundle, hints: Hints) -> Trace | LoadCounts:
    """Add up the counts of all ranks; or open the tokens, where there are any."""
    meta = _meta(bundle)
    counts: list[tuple[str, TensorFile]] = []
    raw: list[tuple[str, TensorFile]] = []
    square: list[str] = []
    other: list[str] = []
    _check_whole(bundle)
    for member, file in zip(bundle.members, bundle.files, strict=True):
        if not is_safetensors(file):
            other += [] if _is_meta(file) else [member]
            continue
        tensors = TensorFile.of(file)
        shapes = set(tensors.shapes.values())
        if not shapes or {len(shape) for shape in shapes} - {1, 2} or len({len(shape) for shape in shapes}) > 1:
            raise InputError.of("tensor_shape", file.name, "Neither counts nor tokens.", "Check the file.")
        if all(len(shape) == 1 for shape in shapes):
            counts.append((member, tensors))
        elif meta.get("num_experts") is not None and shapes == {(meta["num_experts"],) * 2}:
            square.append(member)  # of experts that are used together
        else:
            raw.append((member, tensors))
    notes = []
    if left_out := sorted(other + square):
        more = ", ..." if len(left_out) > SHOWN_FILES else ""
        shown = ", ".join(repr(name[:60]) for name in left_out[:SHOWN_FILES])
        notes.append(f"{len(left_out)} other files were left out: {shown}{more}.")
    if not meta:
        notes.append("There is no meta_info.json.")
    if raw:
        return _open_tokens(bundle, hints, meta, raw, notes)
    if not counts:
        raise InputError.of("zero_tokens", bundle.name, "There is no rank{r}.safetensors.", "Check the recording.")
    return _open_counts(bundle, hints, meta, counts, notes)


def _open_counts(
    bundle: Bundle, hints: Hints, meta: dict[str, int], parts: list[tuple[str, TensorFile]], notes: list[str]
) -> LoadCounts:
    ranks, layers, dropped = ranks_of(parts)
    experts, beyond = _experts(ranks, meta, hints)
    if len(layers) * experts > MAX_CELLS:
        raise InputError.of("too_large", bundle.name, f"{len(layers)} layers of {experts} experts.", "Check the file.")
    found = Violations()
    for rank in ranks:
        for (iteration, layer), shape in rank.tensors.shapes.items():
            if shape[0] not in (experts, experts + beyond) and len(found.found) < SHOWN_FILES:
                place = f"{rank.tensors.file.name}#/{iteration}_{layer}"
                found.add("load_shape", place, f"Shape {shape} is not ({experts},).", "Give one model's statistics.")
    if meta.get("num_experts", experts) != experts:
        detail = f"meta_info.json says {meta['num_experts']} experts, the tensors {experts}."
        found.add("num_experts_differ", bundle.name, detail, "Give the files of one recording.")
    found.raise_if_any()
    load = np.zeros((len(layers), experts + beyond))
    idle = 0
    for rank in ranks:
        for iteration, values in rank.tensors.read(rank.iterations):
            rows = [values[layer] for layer in layers]
            part = np.stack([np.pad(row, (0, load.shape[1] - len(row))) for row in rows] if beyond else rows)
            if (part < 0).any() or (part > 1 << 53).any():
                row = int(np.argmax(((part < 0) | (part > 1 << 53)).any(axis=1)))
                place = f"{rank.tensors.file.name}#/{iteration}_{layers[row]}"
                raise InputError.of("load_not_finite", place, "A count is negative, or beyond any.", "Record it again.")
            idle += not part.any()
            load += part
    notes += dropped
    what = ""
    if beyond:
        of_all = load[:, experts:].sum() / max(load.sum(), 1)
        load = np.ascontiguousarray(load[:, :experts])
        what = (
            f"Tensors have {experts + 1} counts for {experts} experts: id {experts} is a fused shared expert, or rows "
        )
        what += f"without a token. Its {100 * of_all:.2g} % of the counts were left out."
    if idle:
        notes.append(f"{idle} iterations of a rank hold no tokens.")
    if len(ranks) > 1 and all(same_tensors(rank, ranks[0]) for rank in ranks[1:]):
        notes.append(
            "All ranks have the same counts, as without data-parallel attention: every token counts once a rank."
        )
    if len({tuple(rank.iterations) for rank in ranks}) > 1:
        notes.append("The ranks recorded different iterations; all are counted.")
    axes = Axes.settle(bundle, hints, len(layers), lambda: -1, layer_ids=np.array(layers), num_experts=experts)
    counted = checked_counts(bundle.name, "tensorrt_llm", axes, load, f"sha256:{bundle.sha256()}", notes=notes)
    return replace(counted, provenance=counted.provenance.of_ranks(rank.number for rank in ranks).without_beyond(what))


def _experts(ranks: list[RankTensors], meta: dict[str, int], hints: Hints) -> tuple[int, int]:
    """Return the routed experts, and 1 where some tensors have one more count.

    The recorder counts ids with `torch.bincount`, which makes room for an id that is one too large.
    """
    sizes = {shape[0] for rank in ranks for shape in rank.tensors.shapes.values()}
    stated = meta.get("num_experts", hints.experts)
    if stated is not None and sizes <= {stated, stated + 1}:
        return stated, int(stated + 1 in sizes)
    return next(iter(ranks[0].tensors.shapes.values()))[0], 0


def _open_tokens(
    bundle: Bundle, hints: Hints, meta: dict[str, int], parts: list[tuple[str, TensorFile]], notes: list[str]
) -> Trace:
    ranks, layers, dropped = ranks_of(parts)
    top_k = meta.get("num_experts_per_token", next(iter(ranks[0].tensors.shapes.values()))[1])
    found = Violations()
    uneven: dict[int, int] = {}
    whole: list[RankTensors] = []
    for rank in ranks:
        shapes = rank.tensors.shapes
        for (iteration, layer), shape in shapes.items():
            if shape[1] != top_k and len(found.found) < 8:
                place = f"{rank.tensors.file.name}#/{iteration}_{layer}"
                found.add("topk_ids_shape", place, f"Shape {shape}, where top-k is {top_k}.", "Give one recording.")
        even = {}
        for iteration in rank.iterations:
            if len({shapes[iteration, layer][0] for layer in layers}) == 1:
                even[iteration] = layers
            else:
                uneven[rank.number] = uneven.get(rank.number, 0) + 1
        whole.append(RankTensors(number=rank.number, tensors=rank.tensors, iterations=even))
    if not any(rank.iterations for rank in whole):
        detail = "In no iteration do all layers have the same tokens."
        found.add("layers_differ", bundle.name, detail, "Record without multi-token prediction.")
    found.raise_if_any()
    whole, copies = without_copies(whole)
    notes = [*notes, *copies]
    row_bytes = len(layers) * top_k * 8
    tokens_per_batch(1, row_bytes, bundle.name)
    tokens = sum(rank.tensors.shapes[iteration, layers[0]][0] for rank in whole for iteration in rank.iterations)

    def read(max_tokens: int) -> Iterator[Batch]:
        size, start = tokens_per_batch(max_tokens, row_bytes, bundle.name), 0
        for rank in whole:
            for whole_ids in rank.tensors.stacked(rank.iterations):
                for first in range(0, len(whole_ids), size):
                    ids = whole_ids[first : first + size]
                    yield Batch(
                        topk_ids=ids,
                        rows=np.arange(start, start + len(ids)),
                        source_rank=np.full(len(ids), rank.number, np.int32),
                    )
                    start += len(ids)

    def largest_id() -> int:
        return max((int(batch.topk_ids.max(initial=-1)) for batch in read(1 << 16)), default=-1)

    axes = Axes.settle(
        bundle, hints, len(layers), largest_id, layer_ids=np.array(layers), num_experts=meta.get("num_experts")
    )
    if uneven:
        dropped.append(f"{sum(uneven.values())} iterations of a rank lack tokens in a layer and were left out.")
    trace = axes.trace(
        bundle,
        "tensorrt_llm",
        (*notes, *dropped),
        top_k=top_k,
        num_tokens=tokens,
        columns=frozenset({"source_rank"}),
        read=read,
    )
    return replace(trace, provenance=trace.provenance.of_ranks(rank.number for rank in ranks))


def _check_whole(bundle: Bundle) -> None:
    """Refuse files that are to be tensors, by their name, and are not: left out, their tokens would just be missing."""
    found = Violations()
    for member, file in zip(bundle.members, bundle.files, strict=True):
        if member.lower().endswith(SUFFIX) and not is_safetensors(file):
            detail = (
                f"This is no {SUFFIX[1:]} file: its first bytes are no length and header that fit {file.size} bytes."
            )
            found.add("damaged_file", file.name, detail, "Copy or record it again, or leave the file out.")
    found.raise_if_any()


def _sniff_bundle(bundle: Bundle) -> bool:
    """Whether there are tensors, or what claims to be some beside the engine's own description."""
    if any(map(is_safetensors, bundle.files)):
        return True
    return any(map(_is_meta, bundle.files)) and any(member.lower().endswith(SUFFIX) for member in bundle.members)


def _is_meta(file: TraceFile) -> bool:
    return file.size <= META_BYTES and file.head.lstrip().startswith(b"{") and b"num_experts_per_token" in file.head


def _meta(bundle: Bundle) -> dict[str, int]:
    """Read meta_info.json, if there is one."""
    files = [file for file in bundle.files if _is_meta(file)]
    if not files:
        return {}
    with guarded(files[0].name, RecursionError), files[0].open() as stream:
        content: Any = json.loads(stream.read().decode())
        taken = {name: content[name] for name in META_KEYS if name in content}
    for name, value in taken.items():
        if type(value) is not int or not 1 <= value < 1 << 31:
            raise InputError.of("header_type", f"{files[0].name}#/{name}", f"{value!r:.40}?", "Correct the file.")
    return taken


READER = Reader(
    name="tensorrt_llm",
    engine="tensorrt-llm",
    content="TensorRT-LLM expert statistics, rank{r}.safetensors with meta_info.json; tokens only from raw files",
    sniff=is_safetensors,
    open=lambda file, hints: open_bundle(Bundle.single(file), hints),
    sniff_bundle=_sniff_bundle,
    open_bundle=open_bundle,
    also_named=("trtllm",),
)

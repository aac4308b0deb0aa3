"""Megatron's tokens per expert: ``tokens_per_expert/rank{r}.jsonl``, a record per iteration and layer, a file per rank.

    {"iter": 100, "block": "decoder", "layer": 3, "tpe": [[128, 64], [96, 80]]}

``tpe`` has a list per micro-batch, of the tokens that the rank's own experts got. With expert parallelism these are a
share of all: ranks of several expert-parallel positions hold different experts, which are put side by side, in the
order of the ranks. Data-parallel ranks hold the same experts and other tokens: they add up. Ranks of expert tensor
parallelism hold the same counts: they are taken once. Blocks of multi-token prediction (``mtp``) are left out.

References
----------
megatron-core 0.19.2, ``--save-tokens-per-expert-interval``: ``megatron/training/activation_logging.py``, `save_tpe`;
the order of ranks: ``megatron/core/parallel_state.py``, ``tp-cp-ep-dp-pp``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.decoding.int_lists import read_records
from traces.decoding.json_objects import first_keys
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.megatron.copies import without_copies
from traces.formats.reader import Reader
from traces.formats.shared.counts import checked_counts
from traces.formats.shared.matrices import MAX_LAYERS
from traces.support.errors import InputError, Violations

__all__ = ["READER"]

KEYS = {"iter", "layer", "tpe"}
RANK = re.compile(r"rank_?(\d{1,6})")
MAX_COUNT = 1 << 53
ONE_STAGE = "Give `model`; with pipeline parallelism, give the ranks of one stage only, and its layers as `layer_ids`."
STAGES = f"Layers are numbered as in the file. A pipeline stage counts its own from 0. {ONE_STAGE}"


@dataclass
class _Rank:
    """What the file of one rank holds, summed over iterations and micro-batches."""

    file: TraceFile
    number: int
    load: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    iterations: set[int] = field(default_factory=set)
    last: dict[int, int] = field(default_factory=dict)
    back: int = 0
    mtp: int = 0
    content: str = ""

    def scan(self) -> None:
        """Read the file once."""
        digest = hashlib.sha256()
        with self.file.open() as stream:
            for place, record in read_records(stream, self.file.name, ("tpe",)):
                block = record.get("block", "decoder")
                if block == "mtp" or "mtp_idx" in record:
                    self.mtp += 1
                    continue
                if block != "decoder":
                    raise InputError.of("block", f"{place}/block", f"Unknown block {block!r:.40}.", "Leave it out.")
                number, layer = (_index(record, name, place) for name in ("iter", "layer"))
                counts = _counts(record.get("tpe"), f"{place}/tpe")
                digest.update(f"{number} {layer} {counts.shape}".encode() + counts.tobytes())
                if layer >= MAX_LAYERS:
                    raise InputError.of("layer_missing", place, f"Layer {layer}?", "Check the file.")
                self.iterations.add(number)
                self.back += number <= self.last.get(layer, -1)
                self.last[layer] = number
                total = counts.sum(axis=0)
                before = self.load.get(layer)
                if before is not None and len(before) != len(total):
                    detail = f"{len(total)} experts, where earlier records have {len(before)}."
                    raise InputError.of("load_shape", f"{place}/tpe", detail, "Give the files of one run.")
                self.load[layer] = total if before is None else before + total
        self.content = digest.hexdigest()


def open_bundle(bundle: Bundle, hints: Hints) -> LoadCounts:
    """Sum the files of all ranks, each once."""
    ranks: list[_Rank] = []
    for member, file in zip(bundle.members, bundle.files, strict=True):
        if first_keys(file) >= KEYS:
            named = RANK.search(member.rpartition("/")[2])
            ranks.append(_Rank(file=file, number=len(ranks) if named is None else int(named[1])))
    notes = [f"{len(bundle.files) - len(ranks)} other files were left out."] * (len(ranks) < len(bundle.files))
    for rank in ranks:
        rank.scan()
    ranks = sorted((rank for rank in ranks if rank.load), key=lambda rank: rank.number)
    layers, local = _common(ranks, bundle.name)
    if mtp := sum(rank.mtp for rank in ranks):
        notes.append(f"{mtp} records of multi-token prediction (block mtp) were left out: they route other tokens.")
    if back := sum(rank.back for rank in ranks):
        notes.append(f"Iterations do not rise {back} times (a run that was resumed); all are counted.")
    if len({frozenset(rank.iterations) for rank in ranks}) > 1:
        notes.append("The ranks recorded different iterations; all are counted.")
    there = {rank.number for rank in ranks}
    ranks, repeated = without_copies(ranks, "counts")
    notes += repeated
    load, source = _joined(ranks, layers, local, hints, bundle, notes)
    given, model = hints.layer_ids is not None, hints.model
    if not given and model is not None and tuple(layers) != model.moe_layers:
        detail = f"Layers {layers[:8]} are recorded, the model's are {list(model.moe_layers[:8])}."
        remedy = f"A pipeline stage counts its layers from 0. {ONE_STAGE}"
        raise InputError.of("layers_differ", bundle.name, detail, remedy)
    if not given and model is None:
        notes.append(STAGES)
    axes = Axes.settle(
        bundle,
        hints,
        len(layers),
        lambda: -1,
        layer_ids=None if given else np.array(layers),
        num_experts=load.shape[1],
    )
    digest = f"sha256:{bundle.sha256()}"
    counts = checked_counts(
        bundle.name, READER.name, axes, load.astype(np.float64), digest, notes=notes, source_load=source
    )
    return replace(counts, provenance=counts.provenance.of_ranks(there))


def _joined(
    ranks: list[_Rank], layers: list[int], local: int, hints: Hints, bundle: Bundle, notes: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    """Return the counts (L, E), and by source rank where every rank holds all experts."""
    parts = np.stack([np.stack([rank.load[layer] for layer in layers]) for rank in ranks])
    experts, found = hints.experts, Violations()
    if experts is None and len(ranks) > 1:
        detail = f"Each of {len(ranks)} ranks counts {local} experts: all of them, or its own share of more."
        remedy = "Give the model's experts as `num_experts`, or `model`."
        found.add("ranks_ambiguous", bundle.name, detail, remedy)
    if hints.layer_ids is None and hints.model is None and len(ranks) > 1:
        detail = (
            f"Each of {len(ranks)} ranks counts {len(layers)} layers: all of them, or those of its pipeline stage, "
        )
        detail += "which are counted from 0 in every stage."
        found.add("layers_unknown", bundle.name, detail, ONE_STAGE)
    found.raise_if_any()
    if experts is None or experts == local:
        if experts is None:
            notes.append(
                f"The rank counts {local} experts, taken for all: with expert parallelism it counts its own only, so "
                "give `num_experts` or `model`."
            )
        if len(ranks) > 1:
            notes.append(f"{len(ranks)} data-parallel ranks were summed, and kept as source ranks.")
        return parts.sum(axis=0), parts if len(ranks) > 1 else None
    if type(experts) is not int or experts % local or not local < experts <= checks.MAX_EXPERTS:
        detail = f"Each rank counts {local} experts, which are no equal share of {experts!r:.40}."
        raise InputError.of("num_experts_differ", bundle.name, detail, "Check `num_experts`, or `model`.")
    positions = experts // local
    all_there = len(ranks) % positions == 0
    load = np.zeros((len(layers), experts), np.int64)
    for index, part in enumerate(parts):
        # Copies of expert tensor parallelism are gone, so that the rest are positions one after the other.
        place = (index if all_there else ranks[index].number) % positions
        load[:, place * local : (place + 1) * local] += part
    notes.append(
        f"Each rank counts {local} of {experts} experts: rank r is taken for position r mod {positions} of expert "
        "parallelism, and ranks of a position were summed."
    )
    return load, None


def _common(ranks: list[_Rank], name: str) -> tuple[list[int], int]:
    """Return the layers and the number of local experts, which must be the same on all ranks."""
    if not ranks:
        raise InputError.of("zero_tokens", name, "There is no decoder record.", "Check the recording.")
    found = Violations()
    seen: dict[int, str] = {}
    layers = sorted(ranks[0].load)
    sizes = {len(counts) for counts in ranks[0].load.values()}
    for rank in ranks:
        if rank.number in seen:
            detail = f"Rank {rank.number} is also {seen[rank.number]}."
            found.add("duplicate_rank", rank.file.name, detail, "Give one file per rank, of one run.")
        seen[rank.number] = rank.file.name
        if sorted(rank.load) != layers:
            detail = f"Layers {sorted(rank.load)[:8]}, where {ranks[0].file.name} has {layers[:8]}."
            remedy = "Pipeline stages count their layers from 0 each: give the ranks of one stage."
            found.add("layers_differ", rank.file.name, detail, remedy)
        if len(sizes | {len(counts) for counts in rank.load.values()}) > 1:
            detail = "Layers or ranks count several numbers of experts."
            found.add("load_shape", rank.file.name, detail, "Give the files of one run.")
    found.raise_if_any()
    return layers, sizes.pop()


def _index(record: dict[str, Any], name: str, place: str) -> int:
    value = record.get(name)
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise InputError.of("value_type", f"{place}/{name}", f"{value!r:.40} is no index.", "Record it again.")
    return value


def _counts(rows: Any, place: str) -> npt.NDArray[np.int64]:
    """Return the counts of a record, (micro-batches, experts)."""
    if not isinstance(rows, np.ndarray):
        uneven = not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows)
        if uneven or len({len(row) for row in rows}) > 1:
            detail = "Expected a list of equal lists, one per micro-batch."
            raise InputError.of("load_shape", place, detail, "Record it again.")
        if any(set(map(type, row)) != {int} for row in rows):
            raise InputError.of("value_type", place, "Expected integers.", "Record it again.")
        if any(not 0 <= value < MAX_COUNT for row in rows for value in row):
            raise InputError.of("load_not_finite", place, "A count is negative, or beyond any.", "Record it again.")
        rows = np.array(rows, dtype=np.int64)
    if rows.shape[1] > checks.MAX_EXPERTS or rows.min() < 0 or rows.max() >= MAX_COUNT >> 10:
        raise InputError.of("load_not_finite", place, "A count is negative, or beyond any.", "Record it again.")
    counts: npt.NDArray[np.int64] = rows
    return counts


READER = Reader(
    name="megatron_tokens_per_expert",
    engine="megatron",
    content="Megatron tokens_per_expert/rank{r}.jsonl, counts by iteration and layer; loads only",
    sniff=lambda file: first_keys(file) >= KEYS,
    open=lambda file, hints: open_bundle(Bundle.single(file), hints),
    sniff_bundle=lambda bundle: any(first_keys(file) >= KEYS for file in bundle.files),
    open_bundle=open_bundle,
)

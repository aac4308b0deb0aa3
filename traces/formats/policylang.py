"""MoE-PolicyLang traces: JSON Lines with a header, then one line per token and layer.

    {"model_name": "...", "num_layers": 16, "num_experts": 64, "top_k": 8, "num_entries": 4096, ...}
    {"p": 0, "t": 5, "l": 3, "e": [1, 9, ...], "s": [0.3, 0.2, ...], "ph": "decode"}

``p`` is the prompt, ``t`` the position in it, ``l`` the layer, ``e`` the experts, ``s`` their router scores, ``ph`` the
phase. The lines of a prompt stand together, in any order. Other fields are left out.

References
----------
``moe_policylang.integrations.trace_recorder`` of the package ``moe-policylang``, version 1.15.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from traces.batch import Batch
from traces.decoding.files import TraceFile, guarded, tokens_per_batch
from traces.decoding.json_lines import read_objects
from traces.decoding.json_objects import first_keys
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.matrices import MAX_LAYERS
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READER"]

KEYS = frozenset({"num_layers", "num_experts", "top_k", "num_entries"})
PROMPT_IDS = 16 << 20  # ids of one prompt that are held at once
MAX_VALUE = (1 << 63) - 1
PHASES = {"prefill": 0, "decode": 1}


@dataclass
class _Prompt:
    """The lines of one prompt."""

    number: int
    place: str
    token: list[int] = field(default_factory=list)
    layer: list[int] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    phase: list[int] = field(default_factory=list)


@dataclass
class _Scan:
    """What a first pass over the file finds."""

    layers: set[int] = field(default_factory=set)
    tokens_by_layers: Counter[int] = field(default_factory=Counter)
    columns: frozenset[str] | None = None
    dropped: set[str] = field(default_factory=set)

    def add(self, prompt: _Prompt) -> None:
        """Take in the layers, tokens and columns of one prompt."""
        self.layers.update(prompt.layer)
        _, counts = np.unique(np.array(prompt.token), return_counts=True)
        self.tokens_by_layers.update(counts.tolist())
        parts = {"gate_weights": prompt.scores, "phase": prompt.phase}
        columns = frozenset(name for name, values in parts.items() if values)
        if self.columns is None:
            self.columns = columns
        self.dropped |= self.columns ^ columns
        self.columns &= columns


def open_policylang(file: TraceFile, hints: Hints) -> Trace:
    """Open a trace; it is read once, to find its layers and tokens."""
    header, scan = _header(file), _Scan()
    for prompt in _prompts(file, header):
        scan.add(prompt)
    layers, top_k = sorted(scan.layers), header["top_k"]
    if not layers:
        raise InputError.of("zero_tokens", file.name, "There is no token.", "Check the recording.")
    if not len(layers) <= header["num_layers"] <= MAX_LAYERS:
        detail = f"The header says {header['num_layers']} layers; there are {len(layers)}."
        raise InputError.of("layer_missing", file.name, detail, "Copy or record it again.")
    row_bytes = len(layers) * top_k * 8
    tokens_per_batch(1, row_bytes, file.name)
    columns = frozenset({"seq_id", "token_pos"}) | (scan.columns or frozenset())

    def read(max_tokens: int) -> Iterator[Batch]:
        step, start = tokens_per_batch(max_tokens, row_bytes, file.name), 0
        for prompt in _prompts(file, header):
            whole = _joined(prompt, layers, top_k, columns)
            for first in range(0, len(whole), step):
                part = whole.select(slice(first, first + step))
                yield Batch(
                    topk_ids=part.topk_ids,
                    rows=np.arange(start, start + len(part)),
                    **{name: getattr(part, name) for name in columns},
                )
                start += len(part)

    axes = Axes.settle(
        file, hints, len(layers), lambda: -1, layer_ids=np.array(layers), num_experts=header["num_experts"]
    )
    notes = [f"Only some prompts have {name}; it was left out." for name in sorted(scan.dropped)]
    tokens = scan.tokens_by_layers.pop(len(layers), 0)
    if cut := scan.tokens_by_layers.total():
        notes.append(f"{cut} tokens lack layers and were left out.")
    if header["num_layers"] > len(layers):
        notes.append(f"The header counts {header['num_layers']} layers; {len(layers)} have routed tokens.")
    return axes.trace(file, "policylang", tuple(notes), top_k=top_k, num_tokens=tokens, columns=columns, read=read)


def _header(file: TraceFile) -> dict[str, int]:
    with file.open() as stream:
        place, header = next(read_objects(stream, file.name), (file.name, {}))
    taken: dict[str, int] = {}
    for name in ("num_layers", "num_experts", "top_k", "num_entries"):
        value = header.get(name, -1 if name == "num_entries" else None)
        if type(value) is not int or not -1 <= value < 1 << 40:
            raise InputError.of(
                "header_type", f"{place}/{name}", f"Expected a count; got {value!r:.40}.", "Correct the header."
            )
        taken[name] = value
    return taken


def _prompts(file: TraceFile, header: dict[str, int]) -> Iterator[_Prompt]:
    """Yield the prompts, whose lines must stand together."""
    seen: set[int] = set()
    prompt: _Prompt | None = None
    entries = 0
    with file.open() as stream:
        objects = read_objects(stream, file.name)
        next(objects)
        for place, line in objects:
            entries += 1
            number = _integer(line.get("p", 0), f"{place}/p")
            if prompt is None or number != prompt.number:
                if prompt is not None:
                    yield prompt
                if number in seen:
                    raise InputError.of(
                        "prompt_order", place, f"Prompt {number} goes on after another one.", "Sort the lines."
                    )
                seen.add(number)
                prompt = _Prompt(number=number, place=place)
            _add(prompt, line, place, header["top_k"])
    if prompt is not None:
        yield prompt
    if header["num_entries"] not in (-1, entries):
        raise InputError.of(
            "token_count",
            file.name,
            f"The header says {header['num_entries']} lines; there are {entries}.",
            "Copy or record it again.",
        )


def _add(prompt: _Prompt, line: dict[str, Any], place: str, top_k: int) -> None:
    ids = line.get("e")
    if not isinstance(ids, list) or not 1 <= len(ids) <= max(top_k, 0):
        raise InputError.of("topk_ids_shape", f"{place}/e", f"Expected 1 to {top_k} experts.", "Record it again.")
    prompt.ids.append([_integer(value, f"{place}/e") for value in ids])
    prompt.token.append(_integer(line.get("t"), f"{place}/t"))
    prompt.layer.append(_integer(line.get("l"), f"{place}/l"))
    if len(prompt.ids) * top_k > PROMPT_IDS:
        raise InputError.of("prompt_too_long", place, f"Prompt {prompt.number} is too long.", "Split it.")
    scores = line.get("s")
    if scores is not None:
        if (
            not isinstance(scores, list)
            or len(scores) != len(ids)
            or not all(type(value) in (int, float) for value in scores)
        ):
            raise InputError.of("column_shape", f"{place}/s", "Expected one score per expert.", "Record it again.")
        prompt.scores.append(scores)
    phase = line.get("ph")
    if phase is not None:
        if not isinstance(phase, str) or phase not in PHASES:
            raise InputError.of("phase_range", f"{place}/ph", f"{phase!r:.40} is no phase.", "Correct the line.")
        prompt.phase.append(PHASES[phase])


def _joined(prompt: _Prompt, layers: list[int], top_k: int, columns: frozenset[str]) -> Batch:
    """Return the tokens that have all layers, in their order."""
    token, layer = np.array(prompt.token), np.searchsorted(layers, prompt.layer)
    order = np.lexsort((layer, token))
    token, layer = token[order], layer[order]
    if ((np.diff(token) == 0) & (np.diff(layer) == 0)).any():
        raise InputError.of(
            "duplicate_record",
            prompt.place,
            f"Prompt {prompt.number} has a token twice in the same layer.",
            "Give every prompt its own number.",
        )
    for name, values in (("gate_weights", prompt.scores), ("phase", prompt.phase)):
        if name in columns and len(values) != len(token):
            raise InputError.of("column_missing", prompt.place, f"Only some lines have {name}.", "Record it again.")
    positions, counts = np.unique(token, return_counts=True)
    whole = np.repeat(counts == len(layers), counts)
    picked = order[whole]
    shape = (len(picked) // len(layers), len(layers), top_k)
    ids = np.full((len(picked), top_k), -1, np.int64)
    weights = np.zeros((len(picked), top_k), np.float32)
    with guarded(prompt.place), np.errstate(over="ignore"):
        for row, entry in enumerate(picked.tolist()):
            ids[row, : len(prompt.ids[entry])] = prompt.ids[entry]
            if "gate_weights" in columns:
                weights[row, : len(prompt.ids[entry])] = prompt.scores[entry]
    taken: dict[str, Any] = {
        "seq_id": np.full(shape[0], prompt.number, np.int64),
        "token_pos": positions[counts == len(layers)].astype(np.int64),
    }
    if "gate_weights" in columns:
        taken["gate_weights"] = weights.reshape(shape)
    if "phase" in columns:
        taken["phase"] = np.array(prompt.phase, np.uint8)[picked[:: len(layers)]]
    return Batch(topk_ids=ids.reshape(shape), rows=np.arange(shape[0]), **taken)


def _integer(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_VALUE:
        raise InputError.of("value_type", place, f"{value!r:.40} is no index.", "Correct the line.")
    return value


READER = Reader(
    name="policylang",
    content="MoE-PolicyLang JSON Lines, one line per token and layer",
    sniff=lambda file: first_keys(file) >= KEYS,
    open=open_policylang,
)

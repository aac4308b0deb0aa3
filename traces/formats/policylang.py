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
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.batch import Batch
from traces.decoding.files import TraceFile, guarded, tokens_per_batch
from traces.decoding.json_lines import LINE_BYTES, Rest, read_objects
from traces.decoding.json_objects import first_keys
from traces.decoding.policylang_lines import Entries, Line, entries_of, parse_entries
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.matrices import MAX_LAYERS
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READER"]

KEYS = frozenset({"num_layers", "num_experts", "top_k", "num_entries"})
PROMPT_IDS = 16 << 20  # ids of one prompt that are held at once
CHUNK_BYTES = 4 << 20
LINES = 4096  # that the JSON parser reads at once
MAX_VALUE = (1 << 63) - 1
PHASES = {"prefill": 0, "decode": 1}


@dataclass
class _Prompt:
    """The lines of one prompt, in parts."""

    number: int
    place: str
    parts: list[Entries] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def all(self, name: str) -> npt.NDArray[Any]:
        """Return a column of all lines."""
        return np.concatenate([getattr(part, name) for part in self.parts])

    def rows(self, name: str, width: int, filler: int) -> npt.NDArray[Any]:
        """Return a column of lists of all lines that have them, filled to a width."""
        parts = [part for part in (getattr(part, name) for part in self.parts) if part is not None]
        return np.concatenate(
            [np.pad(part, ((0, 0), (0, max(0, width - part.shape[1]))), constant_values=filler) for part in parts]
        )


@dataclass
class _Scan:
    """What a first pass over the file finds."""

    layers: set[int] = field(default_factory=set)
    tokens_by_layers: Counter[int] = field(default_factory=Counter)
    columns: frozenset[str] | None = None
    dropped: set[str] = field(default_factory=set)

    def add(self, prompt: _Prompt) -> None:
        """Take in the layers, tokens and columns of one prompt."""
        self.layers.update(np.unique(prompt.all("layer")).tolist())
        _, counts = np.unique(prompt.all("token"), return_counts=True)
        self.tokens_by_layers.update(counts.tolist())
        there = {"gate_weights": prompt.all("has_scores").any(), "phase": (prompt.all("phase") >= 0).any()}
        columns = frozenset(name for name, some in there.items() if some)
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
    count = 0
    for first, entries in _entries(file, header["top_k"]):
        count += len(entries)
        starts = np.flatnonzero(np.r_[True, np.diff(entries.prompt) != 0])
        for start, stop in pairwise([*starts.tolist(), len(entries)]):
            number, place = int(entries.prompt[start]), f"{file.name}#line {first + start}"
            if prompt is None or number != prompt.number:
                if prompt is not None:
                    yield prompt
                if number in seen:
                    raise InputError.of(
                        "prompt_order", place, f"Prompt {number} goes on after another one.", "Sort the lines."
                    )
                seen.add(number)
                prompt = _Prompt(number=number, place=place)
            prompt.parts.append(entries.part(start, stop))
            if len(prompt) * header["top_k"] > PROMPT_IDS:
                raise InputError.of("prompt_too_long", place, f"Prompt {prompt.number} is too long.", "Split it.")
    if prompt is not None:
        yield prompt
    if header["num_entries"] not in (-1, count):
        raise InputError.of(
            "token_count",
            file.name,
            f"The header says {header['num_entries']} lines; there are {count}.",
            "Copy or record it again.",
        )


def _entries(file: TraceFile, top_k: int) -> Iterator[tuple[int, Entries]]:
    """Yield the lines behind the header in parts, and the number of the first of each."""
    number = 2
    with file.open() as stream:
        with guarded(file.name):
            stream.readline(LINE_BYTES + 1)
        while True:
            with guarded(f"{file.name}#line {number}"):
                text = stream.read(CHUNK_BYTES)
                text += stream.readline(LINE_BYTES + 1) if text and not text.endswith(b"\n") else b""
            if not text:
                return
            entries = parse_entries(text, top_k)
            if entries is None:
                break
            yield number, entries
            number += len(entries)
        # All others are parsed as JSON, which tells what is wrong with them.
        several: list[Line] = []
        lines = read_objects(Rest(text, stream), file.name, number)
        for place, line in lines:
            several.append(_entry(line, place, top_k))
            if len(several) == LINES:
                yield number, entries_of(several)
                number, several = number + LINES, []
        if several:
            yield number, entries_of(several)


def _entry(line: dict[str, Any], place: str, top_k: int) -> Line:
    number = _integer(line.get("p", 0), f"{place}/p")
    ids = line.get("e")
    if not isinstance(ids, list) or not 1 <= len(ids) <= max(top_k, 0):
        raise InputError.of("topk_ids_shape", f"{place}/e", f"Expected 1 to {top_k} experts.", "Record it again.")
    row = [_integer(value, f"{place}/e") for value in ids]
    token, layer = _integer(line.get("t"), f"{place}/t"), _integer(line.get("l"), f"{place}/l")
    scores = line.get("s")
    if scores is not None and (
        not isinstance(scores, list)
        or len(scores) != len(ids)
        or not all(type(value) in (int, float) for value in scores)
    ):
        raise InputError.of("column_shape", f"{place}/s", "Expected one score per expert.", "Record it again.")
    phase = line.get("ph")
    if phase is not None and (not isinstance(phase, str) or phase not in PHASES):
        raise InputError.of("phase_range", f"{place}/ph", f"{phase!r:.40} is no phase.", "Correct the line.")
    with guarded(place):
        weights = None if scores is None else list(map(float, scores))
    return number, token, layer, row, weights, -1 if phase is None else PHASES[phase]


def _joined(prompt: _Prompt, layers: list[int], top_k: int, columns: frozenset[str]) -> Batch:
    """Return the tokens that have all layers, in their order."""
    token, layer = prompt.all("token"), np.searchsorted(layers, prompt.all("layer"))
    order = np.lexsort((layer, token))
    token, layer = token[order], layer[order]
    if ((np.diff(token) == 0) & (np.diff(layer) == 0)).any():
        raise InputError.of(
            "duplicate_record",
            prompt.place,
            f"Prompt {prompt.number} has a token twice in the same layer.",
            "Give every prompt its own number.",
        )
    there = {"gate_weights": prompt.all("has_scores"), "phase": prompt.all("phase") >= 0}
    for name, known in there.items():
        if name in columns and not known.all():
            raise InputError.of("column_missing", prompt.place, f"Only some lines have {name}.", "Record it again.")
    positions, counts = np.unique(token, return_counts=True)
    whole = np.repeat(counts == len(layers), counts)
    picked = order[whole]
    shape = (len(picked) // len(layers), len(layers), top_k)
    taken: dict[str, Any] = {
        "seq_id": np.full(shape[0], prompt.number, np.int64),
        "token_pos": positions[counts == len(layers)].astype(np.int64),
    }
    if "gate_weights" in columns:
        taken["gate_weights"] = prompt.rows("scores", top_k, 0)[picked].reshape(shape)
    if "phase" in columns:
        taken["phase"] = prompt.all("phase")[picked[:: len(layers)]].astype(np.uint8)
    return Batch(topk_ids=prompt.rows("ids", top_k, -1)[picked].reshape(shape), rows=np.arange(shape[0]), **taken)


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

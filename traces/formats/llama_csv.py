"""llama.cpp's expert trace: a CSV with one line ``layer,expert`` per activation, with or without that title.

Loads only: the lines do not tell where a token or a batch ends, nor how many experts a token has.

References
----------
``llama-moe-trace``, a tool around llama.cpp's evaluation callback that logs the ``ffn_moe_topk`` tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from traces import rules as checks
from traces.counts import LoadCounts
from traces.decoding.files import TraceFile, guarded
from traces.decoding.pair_lines import BAD_LINE, DONE, as_bytes, count_lines
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.counts import checked_counts
from traces.formats.shared.matrices import MAX_LAYERS
from traces.support.errors import InputError

__all__ = ["READER"]

BOM = b"\xef\xbb\xbf"
TITLE = re.compile(rb"[ \t]*layer[ \t]*,[ \t]*expert[ \t]*\r?\n", re.IGNORECASE)
PAIR = re.compile(rb"[ \t]*\d{1,9}[ \t]*,[ \t]*\d{1,9}[ \t]*\r?")
CHUNK_BYTES = 8 << 20
LINE_BYTES = 64
FIRST_SHAPE = (128, 512)


def is_pairs(file: TraceFile) -> bool:
    """Tell whether the head has the title, or nothing but lines of two whole numbers, too many for a load matrix.

    Raises
    ------
    InputError
        If the lines may as well be the loads of two experts per layer.
    """
    head = file.head.removeprefix(BOM)
    if TITLE.match(head):
        return True
    lines = head.split(b"\n")
    # The last line of the head may be cut.
    whole = lines[:-1] if file.size > len(file.head) else [line for line in lines if line.strip()]
    if not whole or not all(PAIR.fullmatch(line) for line in whole):
        return False
    if file.size > MAX_LAYERS * LINE_BYTES:
        return True
    with file.open() as stream, guarded(file.name):
        if sum(1 for _ in stream) > MAX_LAYERS:
            return True
    raise InputError.of(
        "ambiguous_format",
        file.name,
        "Lines of two numbers may be activations (layer,expert), or the loads of two experts per layer.",
        "Say which as `format`, llama_csv or eplb, or write the title layer,expert.",
    )


def open_llama_csv(file: TraceFile, hints: Hints) -> LoadCounts:
    """Count all lines, in constant memory."""
    counts = np.zeros(FIRST_SHAPE, np.int64)
    state = np.zeros(4, np.int64)
    notes = ["The lines don't tell tokens apart: loads only."]
    for text, last in _chunks(file):
        if last and not text.endswith(b"\n"):
            # Each line is written with its end, so this one may be the first digits of a longer number.
            text = text[: text.rfind(b"\n") + 1]
            notes.append("The last line has no line end and may be cut off; it was left out.")
        lines = as_bytes(text)
        state[0] = 0
        while (outcome := count_lines(lines, counts, state)) != DONE:
            place = f"{file.name}#line {int(state[1]) + 1 + _has_title(file)}"
            if outcome == BAD_LINE:
                shown = bytes(lines[state[0] : state[0] + 40]).split(b"\n")[0].decode(errors="replace")
                raise InputError.of("csv_line", place, f"{shown!r} is not layer,expert.", "Copy or record it again.")
            layer, expert = int(state[2]), int(state[3])
            if layer >= MAX_LAYERS or expert >= checks.MAX_EXPERTS:
                raise InputError.of(
                    "id_out_of_range", place, f"Layer {layer}, expert {expert} is beyond any model.", "Check the file."
                )
            more = (max(0, layer + 1 - counts.shape[0]), max(0, expert + 1 - counts.shape[1]))
            counts = np.pad(counts, ((0, more[0]), (0, more[1])))
    layers = np.flatnonzero(counts.any(axis=1))
    if not layers.size:
        raise InputError.of("zero_tokens", file.name, "There is no activation.", "Check the recording.")
    largest = int(np.flatnonzero(counts.any(axis=0))[-1])
    beyond = hints.lenient and hints.experts is not None and largest >= hints.experts
    counted = largest + 1 if beyond else None  # whoever looks at the counts tells
    axes = Axes.settle(file, hints, len(layers), lambda: largest, layer_ids=layers, num_experts=counted)
    if not largest < axes.num_experts <= checks.MAX_EXPERTS:
        detail = f"Expert {largest} must be below `num_experts` = {axes.num_experts}."
        remedy = "Correct `num_experts`, or leave out the lines of experts that are not routed (a fused shared one)."
        raise InputError.of("id_out_of_range", file.name, detail, remedy)
    load = np.zeros((len(layers), axes.num_experts))
    load[:, : largest + 1] = counts[layers, : largest + 1]
    return checked_counts(file.name, "llama_csv", axes, load, f"sha256:{file.sha256()}", notes=notes, by_hand=True)


def _has_title(file: TraceFile) -> bool:
    return TITLE.match(file.head.removeprefix(BOM)) is not None


def _chunks(file: TraceFile) -> Iterator[tuple[bytes, bool]]:
    """Yield whole lines behind the title, a few megabytes at a time, and whether they are the last."""
    with file.open() as stream, guarded(file.name):
        if file.head.startswith(BOM):
            stream.seek(len(BOM))
        if _has_title(file):
            stream.readline(LINE_BYTES)
        while text := stream.read(CHUNK_BYTES):
            text += stream.readline(LINE_BYTES)
            yield text, not stream.peek(1)


READER = Reader(
    name="llama_csv",
    content="llama.cpp activations, one line layer,expert each; loads only",
    sniff=is_pairs,
    open=open_llama_csv,
)

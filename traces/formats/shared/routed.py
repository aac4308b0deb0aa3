"""What the `routed_experts` of engines have in common: arrays (tokens, layers of the model, K), response by response.

Dense layers are all zero in them. The last sampled token has no row, as it was never fed to the model.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.batch import Batch
from traces.decoding.files import TraceFile, tokens_per_batch
from traces.formats.hints import Hints
from traces.formats.mistaken import RECORD_ROUTED
from traces.formats.shared.model_layers import axes_of_rows, moe_rows, names_of_ordinals
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["Routed", "decode_base64", "open_routed", "token_counts"]

SCAN_TOKENS = 65_536
ORDINALS = "The array has MoE layers only, as TensorRT-LLM's Router Replay returns it: its engine is taken to be that."
ALL_ZERO = (
    "Record again. In vLLM, MoE kernels that route by themselves (monolithic ones) leave the buffer of "
    "`enable_return_routed_experts` at zero: serve with another `moe_backend`."
)


@dataclass(frozen=True, kw_only=True)
class Routed:
    """The rows of one response, or a part of an array.

    Attributes
    ----------
    ids : (T, layers of the model, K) integers
    place : str
        For errors.
    first : int or None
        Position of the first row in its sequence, where the response's own token counts tell it.
    prompt : int or None
        Tokens of the prompt.
    """

    ids: npt.NDArray[Any]
    place: str
    first: int | None = None
    prompt: int | None = None


@dataclass
class _Scan:
    """What a pass finds: everything that a trace must know and the file does not say."""

    tokens: int = 0
    empty_rows: int = 0
    largest: int = -1
    layers: int = 0
    top_k: int = 0
    sequences: int = 0
    positions: bool = True
    used: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def add(self, part: Routed) -> None:
        """Take in one response."""
        ids = part.ids
        checks.check_ids_dtype(ids.dtype, part.place)
        if ids.ndim != 3 or 0 in ids.shape[1:]:
            raise InputError.of(
                "routed_shape", part.place, f"Shape {ids.shape} is not (tokens, layers, top-k).", "Check the recording."
            )
        if not self.layers:
            self.layers, self.top_k = ids.shape[1:]
            self.used = np.zeros(self.layers, np.bool_)
            tokens_per_batch(1, ids.itemsize * self.layers * self.top_k, part.place)
        if ids.shape[1:] != (self.layers, self.top_k):
            raise InputError.of(
                "routed_shape",
                part.place,
                f"{ids.shape[1]} layers and top-{ids.shape[2]}, where others have {self.layers} and {self.top_k}.",
                "Keep the responses of different models apart.",
            )
        self.sequences += 1
        self.positions &= part.first is not None
        if not len(ids):
            return
        self.tokens += len(ids)
        flat = ids.reshape(len(ids), -1)
        highest = flat.max(axis=0)
        self.largest = max(self.largest, int(highest.max()))
        used = highest != 0
        if ids.dtype.kind == "i":
            used |= flat.min(axis=0) != 0
        self.used |= used.reshape(ids.shape[1:]).any(axis=1)
        self.empty_rows += len(ids) - int(np.count_nonzero(flat.any(axis=1)))


def open_routed(
    file: TraceFile,
    hints: Hints,
    name: str,
    parts: Callable[[int], Iterator[Routed]],
    *,
    by_response: bool,
    notes: Callable[[], tuple[str, ...]] = tuple,
) -> Trace:
    """Open a trace of `routed_experts`; it is read once, to tell dense layers from others.

    Parameters
    ----------
    file : TraceFile
    hints : Hints
    name : str
        Of the format.
    parts : callable
        ``parts(max_tokens)`` reads the file from its start; parts may have more tokens where they can't be split.
    by_response : bool
        Whether every part is a sequence of its own.
    notes : callable
        Asked after the first pass.
    """
    scan = _Scan()
    for part in parts(SCAN_TOKENS):
        scan.add(part)
    if not scan.tokens:
        remedy = RECORD_ROUTED if by_response else "Check the recording."
        raise InputError.of("zero_tokens", file.name, "There are no rows of routed experts.", remedy)
    if not (scan.used.any() or hints.lenient):
        raise InputError.of("zero_tokens", file.name, "All ids are 0: no choice was captured.", ALL_ZERO)
    named = None if by_response or not scan.used.all() else names_of_ordinals(hints, scan.layers)
    if named is None:
        rows, layer_notes = moe_rows(file.name, hints, scan.used, certain=scan.top_k > 1)
    else:
        rows, layer_notes = np.arange(scan.layers), (ORDINALS,)
    if scan.empty_rows and scan.top_k > 1 and not (hints.drop_dummy_rows or hints.lenient):
        raise InputError.of(
            "unwritten_rows",
            file.name,
            f"{scan.empty_rows} of {scan.tokens} rows are all zero: no token chooses expert 0 {scan.top_k} times.",
            "They were never written, most likely: leave them out with `drop_dummy_rows`.",
        )
    layers = rows if named is None else named
    axes = axes_of_rows(file, hints, layers, largest_id=scan.largest, num_experts=None)
    whole = len(rows) == scan.layers
    row_bytes = 8 * scan.layers * scan.top_k
    positions = by_response and scan.positions
    columns = frozenset((["seq_id"] if by_response else []) + (["token_pos", "phase"] if positions else []))

    def batches(max_tokens: int) -> Iterator[Batch]:
        start = 0
        for number, part in enumerate(parts(max_tokens)):
            ids = part.ids if whole else part.ids[:, rows]
            count = len(ids)
            extra: dict[str, Any] = {"seq_id": np.full(count, number, np.int64)} if by_response else {}
            if positions and part.first is not None and part.prompt is not None:
                extra["token_pos"] = part.first + np.arange(count, dtype=np.int64)
                extra["phase"] = (extra["token_pos"] >= part.prompt).astype(np.uint8)
            yield Batch(topk_ids=ids, rows=np.arange(start, start + count), **extra)
            start += count

    def read(max_tokens: int) -> Iterator[Batch]:
        step = tokens_per_batch(max_tokens, row_bytes, file.name)
        return _regrouped(batches(step), step, columns) if by_response else batches(step)

    trace = axes.trace(
        file,
        name,
        (*layer_notes, *notes()),
        top_k=scan.top_k,
        num_tokens=scan.tokens,
        columns=columns,
        read=read,
    )
    if named is None:
        return trace
    return replace(trace, provenance=replace(trace.provenance, engine="tensorrt-llm"))


def token_counts(usage: Any) -> tuple[int, int] | None:
    """Return (prompt_tokens, completion_tokens) of a response, if both are there."""
    if not isinstance(usage, dict):
        return None
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if all(type(count) is int and 0 <= count < 1 << 40 for count in counts):
        return counts  # type: ignore[return-value]  # just checked
    return None


def place_rows(ids: npt.NDArray[Any], place: str, counts: tuple[int, int] | None) -> Routed:
    """Return the rows of one response. Its token counts tell where the first one is: only the last token has none.

    Raises
    ------
    InputError
        If there are more rows than tokens.
    """
    if counts is not None and len(ids) > sum(counts):
        detail = f"{len(ids)} rows of {ids.shape[1]} layers and top-{ids.shape[2]}, but the response has {sum(counts)}"
        detail += " tokens."
        remedy = "Check the layers (`model`) and `top_k`; a fused shared expert is one more of the experts per token."
        raise InputError.of("routed_shape", place, detail, remedy)
    if counts is not None and (first := sum(counts) - 1 - len(ids)) >= 0:
        return Routed(ids=ids, place=place, first=first, prompt=counts[0])
    return Routed(ids=ids, place=place)


def decode_base64(text: Any, place: str) -> bytes:
    """Decode the text of a field."""
    if not isinstance(text, str):
        raise InputError.of("bad_base64", place, "Expected base64 text.", "Copy the response as it is.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError.of("bad_base64", place, "This is no base64.", "Copy or record it again.") from error


def _regrouped(parts: Iterable[Batch], step: int, columns: frozenset[str]) -> Iterator[Batch]:
    """Yield batches of `step` tokens: responses are much shorter, or much longer."""
    names = ("topk_ids", "rows", *columns)
    held: list[Batch] = []
    count = 0

    def joined() -> Batch:
        if len(held) == 1:
            return held[0]
        return Batch(**{name: np.concatenate([getattr(part, name) for part in held]) for name in names})

    for part in parts:
        start = 0
        while start < len(part):
            taken = part.select(slice(start, start + step - count))
            held.append(taken)
            start += len(taken)
            count += len(taken)
            if count == step:
                yield joined()
                held, count = [], 0
    if held:
        yield joined()

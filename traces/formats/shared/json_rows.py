"""What the objects of a JSON Lines trace mean: a header, and tokens that are put together to batches."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.batch import COLUMNS, Batch, as_column
from traces.decoding.files import guarded
from traces.support.errors import InputError, Violations

__all__ = ["FORMAT", "VERSION", "Token", "batch_of", "parse_token", "read_header"]

FORMAT = "moe-placement-trace"
VERSION = 1
MAX_VALUE = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One line: ids per layer, as an array or as lists of several lengths, the other columns, and names of metadata."""

    topk_ids: list[list[int]] | npt.NDArray[np.int64]
    columns: dict[str, Any]
    meta: frozenset[str]
    place: str


def read_header(place: str, header: dict[str, Any]) -> dict[str, Any]:
    """Check the header line and return it."""
    found = Violations()
    for name, expected in (("format", FORMAT), ("version", VERSION)):
        if header.get(name) != expected:
            found.add(
                f"{name}_unknown",
                f"{place}/{name}",
                f"Expected {expected!r}; got {header.get(name)!r:.40}.",
                "Convert it.",
            )
    for name in ("num_experts", "top_k", "num_tokens"):
        value = header.get(name, 1)
        if type(value) is not int or not 0 <= value <= MAX_VALUE:
            found.add("header_type", f"{place}/{name}", f"Expected a count; got {value!r:.40}.", "Correct the header.")
    layers = header.get("layer_ids", [])
    if not isinstance(layers, list) or any(type(layer) is not int or abs(layer) > MAX_VALUE for layer in layers):
        found.add("header_type", f"{place}/layer_ids", "Expected a list of integers.", "Correct the header.")
    known = {"format", "version", "num_experts", "top_k", "num_tokens", "layer_ids"}
    for name in header:
        if name not in known and not name.startswith("meta_"):
            found.add("unknown_field", f"{place}/{name[:40]}", "No such header field.", "Name metadata meta_...")
    found.raise_if_any()
    return header


def parse_token(value: dict[str, Any], place: str) -> Token:
    """Check fields and types of a token's object, whose `topk_ids` may be an array already."""
    found = Violations()
    for name in value:
        if name != "topk_ids" and name not in COLUMNS and not name.startswith("meta_"):
            close = difflib.get_close_matches(name, ("topk_ids", *COLUMNS), n=1)
            remedy = f"Did you mean {close[0]}?" if close else "Name metadata meta_..."
            found.add("unknown_column", f"{place}/{name[:40]}", "No such column.", remedy)
    if "topk_ids" not in value:
        found.add("topk_ids_missing", place, "The token has no topk_ids.", "Every line has topk_ids.")
    found.raise_if_any()
    given = value["topk_ids"]
    ids = given if isinstance(given, np.ndarray) else _nested(given, f"{place}/topk_ids", (int,))
    columns = {name: value[name] for name in COLUMNS if name in value}
    for name, entry in columns.items():
        if name == "gate_weights":
            weights = _nested(entry, f"{place}/{name}", (int, float))
            if list(map(len, weights)) != list(map(len, ids)):
                raise InputError.of(
                    "column_shape", f"{place}/{name}", "Lengths differ from topk_ids.", "Give one weight per id."
                )
        else:
            _check_types([entry], f"{place}/{name}", (int,))
    return Token(
        topk_ids=ids, columns=columns, meta=frozenset(name for name in value if name.startswith("meta_")), place=place
    )


def batch_of(tokens: Sequence[Token], start: int, layers: int, top_k: int, columns: frozenset[str]) -> Batch:
    """Put tokens together, the first of which is row `start`; short layers are padded with -1 (weights with 0)."""
    shape = (len(tokens), layers, top_k)
    ids = np.full(shape, -1, np.int64)
    weights = np.zeros(shape, np.float32)
    for row, token in enumerate(tokens):
        whole = token.topk_ids if isinstance(token.topk_ids, np.ndarray) else None
        longest = max(map(len, token.topk_ids), default=0) if whole is None else whole.shape[1]
        if len(token.topk_ids) != layers or longest > top_k:
            raise InputError.of(
                "topk_ids_shape",
                f"{token.place}/topk_ids",
                f"Expected {layers} layers with at most {top_k} ids.",
                "Every line has the same layers; missing ids may be left out.",
            )
        if columns != token.columns.keys():
            differing = sorted(columns ^ token.columns.keys())
            raise InputError.of(
                "column_missing", token.place, f"Only some lines have {differing}.", "Give it on every line, or none."
            )
        weighted = token.columns.get("gate_weights")
        if whole is not None:
            ids[row, :, :longest] = whole
        if whole is not None and weighted is None:
            continue
        with guarded(token.place), np.errstate(over="ignore"):
            for layer, chosen in enumerate(token.topk_ids):
                if whole is None:
                    ids[row, layer, : len(chosen)] = chosen
                if weighted is not None:
                    weights[row, layer, : len(chosen)] = weighted[layer]
    taken: dict[str, Any] = {
        name: as_column(name, np.array([token.columns[name] for token in tokens], np.int64), tokens[0].place)
        for name in columns
        if name != "gate_weights"
    }
    if "gate_weights" in columns:
        taken["gate_weights"] = weights
    return Batch(topk_ids=ids, rows=np.arange(start, start + len(tokens)), **taken)


def _nested(value: Any, place: str, types: tuple[type, ...]) -> list[list[Any]]:
    if not isinstance(value, list) or not all(isinstance(layer, list) for layer in value):
        raise InputError.of(
            "nesting", place, "Expected one list per layer.", "Nest it as [[...], [...]], one list per layer."
        )
    for layer in value:
        _check_types(layer, place, types)
    return value


def _check_types(values: list[Any], place: str, types: tuple[type, ...]) -> None:
    """Refuse everything but `types`; true and false are no integers here."""
    if not set(map(type, values)) <= set(types):
        wrong = next(value for value in values if type(value) not in types)
        expected = "an integer" if types == (int,) else "a number"
        raise InputError.of("value_type", place, f"{json.dumps(wrong):.40} is not {expected}.", "Correct the value.")
    if types == (int,) and values and not -MAX_VALUE <= min(values) <= max(values) <= MAX_VALUE:
        raise InputError.of("value_range", place, "An integer takes more than 64 bits.", "Correct the value.")

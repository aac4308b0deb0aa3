"""Answers of engines, some of which carry `routed_experts`: where in them, and in which form.

Engines agree on the name of the field and on little else. vLLM sends a `.npy` as base64 text, SGLang bare numbers as
base64 text, LMDeploy nested lists, Dynamo what its engine sends, in an envelope of its own. So a reader asks for places
and forms. Streamed answers have the field in their last line only, so the first answer that has it tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces.decoding.files import TraceFile, guarded
from traces.decoding.json_objects import ANSWER_KEYS, first_keys, split_with
from traces.support.errors import InputError

__all__ = ["FIELD", "Form", "is_answers", "nested_ids", "routed_fields"]

FIELD = "routed_experts"
MAX_DEPTH = 5
Form = Literal["text", "lists", "object", "other"]


def is_answers(file: TraceFile) -> bool:
    """Whether a file is JSON whose first object is an engine's answer, with routed experts or without."""
    return file.head.lstrip()[:1] in (b"{", b"[") and bool(first_keys(file) & ANSWER_KEYS)


def routed_fields(file: TraceFile) -> frozenset[tuple[str, Form]]:
    """Return the places and forms of the field in the first answer that has it; none if no answer has.

    Places are keys joined by dots, without the positions in lists: ``choices.routed_experts``.
    """
    if not is_answers(file):
        return frozenset()
    try:
        return _fields(str(file.path), file.size, file.changed_ns)
    except OSError as error:
        raise InputError.of("cannot_read", file.name, f"Can't read it: {error.strerror}.", "Load it again.") from error


@lru_cache(maxsize=4)
def _fields(path: str, size: int, changed_ns: int) -> frozenset[tuple[str, Form]]:
    with open(path, "rb") as stream:  # noqa: PTH123
        try:
            for answer in split_with(stream, path, FIELD):
                if found := frozenset(_walk(answer, "", 0)):
                    return found
        except InputError:
            pass  # whoever reads the file tells
    return frozenset()


def _walk(value: Any, place: str, depth: int) -> Iterator[tuple[str, Form]]:
    if isinstance(value, list) and depth < MAX_DEPTH:
        for item in value:
            if isinstance(item, dict):
                yield from _walk(item, place, depth)
    elif isinstance(value, dict) and depth < MAX_DEPTH:
        for key, inner in value.items():
            below = f"{place}.{key}" if place else key
            if key != FIELD:
                yield from _walk(inner, below, depth + 1)
            elif inner is not None:
                yield below, _form(inner)


def _form(value: Any) -> Form:
    if isinstance(value, list | np.ndarray):
        return "lists"
    return "text" if isinstance(value, str) else "object" if isinstance(value, dict) else "other"


def nested_ids(value: Any, place: str) -> npt.NDArray[np.int64] | None:
    """Return nested lists as (tokens, layers, K) int64; None where there is no token.

    Parameters
    ----------
    value : lists, or an array that was made from them
    place : str
        For errors.

    Raises
    ------
    InputError
        If rows have several lengths, or an entry is no integer.
    """
    if isinstance(value, np.ndarray):
        return value
    if value == []:
        return None
    remedy = "Copy the answer as it is."
    try:
        rows = [len(row) for token in value for row in token]
        layers = [len(token) for token in value]
        flat = list(chain.from_iterable(chain.from_iterable(value)))
    except TypeError:
        detail = "Expected a list per token, of a list per layer, of ids."
        raise InputError.of("nesting", place, detail, remedy) from None
    if len(set(rows)) > 1 or len(set(layers)) > 1:
        detail = f"Tokens of {sorted(set(layers))[:8]} layers, with {sorted(set(rows))[:8]} ids."
        raise InputError.of("routed_shape", place, detail, remedy)
    if not set(map(type, flat)) <= {int}:
        raise InputError.of("value_type", place, "Expected integers.", remedy)
    with guarded(place):
        return np.array(flat, np.int64).reshape(len(layers), layers[0], rows[0] if rows else 0)

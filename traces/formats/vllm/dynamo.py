"""What Dynamo makes of vLLM's `routed_experts`: raw bytes in base64, beside their shape, dtype and first position.

    {"choices": [...], "nvext": {"routed_experts":
        {"data": "...", "shape": [130, 28, 8], "start": 0, "dtype": "uint8"}}}

It stands in ``nvext``, or in ``nvext.engine_data``, by what the request asks for (``nvext.extra_fields``).

References
----------
``components/src/dynamo/vllm/handlers.py`` of https://github.com/ai-dynamo/dynamo, 1.6.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from traces.formats.shared.answers import FIELD, Form
from traces.formats.shared.routed import Routed, decode_base64
from traces.support.errors import InputError

__all__ = ["PLACES", "decoded", "envelope"]

PLACES: frozenset[tuple[str, Form]] = frozenset(
    {(f"nvext.{FIELD}", "object"), (f"nvext.engine_data.{FIELD}", "object")}
)
MAX_AXIS = 1 << 40


def envelope(response: dict[str, Any], place: str) -> tuple[Any, str] | None:
    """Return the field of an answer and its place; None where Dynamo has added none."""
    nvext = response.get("nvext")
    if not isinstance(nvext, dict):
        return None
    if nvext.get(FIELD) is not None:
        return nvext[FIELD], f"{place}/nvext/{FIELD}"
    inner = nvext.get("engine_data")
    if isinstance(inner, dict) and inner.get(FIELD) is not None:
        return inner[FIELD], f"{place}/nvext/engine_data/{FIELD}"
    return None


def decoded(value: Any, place: str, counts: tuple[int, int] | None) -> Routed:
    """Return the rows of an answer.

    Parameters
    ----------
    value : object
        The field.
    place : str
    counts : tuple of int or None
        Tokens of prompt and completion, as the answer has them.

    Raises
    ------
    InputError
        If a part is missing or of a wrong type, or the bytes do not fill the shape.
    """
    remedy = "Copy the answer as it is."
    if not isinstance(value, dict):
        raise InputError.of("response_schema", place, "Expected data, shape, start and dtype.", remedy)
    shape, start, name = value.get("shape"), value.get("start", 0), value.get("dtype")
    if (
        not isinstance(shape, list)
        or len(shape) != 3
        or not all(type(length) is int and 0 <= length < MAX_AXIS for length in shape)
    ):
        raise InputError.of("routed_shape", f"{place}/shape", f"{shape!r:.40} is not (tokens, layers, top-k).", remedy)
    if type(start) is not int or not 0 <= start < MAX_AXIS:
        raise InputError.of("value_type", f"{place}/start", f"{start!r:.40} is no position.", remedy)
    try:
        dtype = np.dtype(name) if isinstance(name, str) and name else None
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in "iu":
        raise InputError.of("topk_ids_dtype", f"{place}/dtype", f"{name!r:.40} is no type of integers.", remedy)
    data = decode_base64(value.get("data"), f"{place}/data")
    if len(data) != math.prod(shape) * dtype.itemsize:
        detail = f"{len(data)} bytes don't fill {shape} of {dtype.name}."
        raise InputError.of("routed_shape", f"{place}/data", detail, remedy)
    ids = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype.newbyteorder("=")).reshape(shape)
    if counts is None:
        return Routed(ids=ids, place=place)
    return Routed(ids=ids, place=place, first=start, prompt=counts[0])

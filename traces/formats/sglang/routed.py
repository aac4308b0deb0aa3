"""SGLang's `routed_experts`: responses with raw int32 in base64, whose layers and top-k the caller has to state.

Layers are all those of the model, dense ones all zero; ids are logical.

References
----------
SGLang 0.5.23, ``return_routed_experts``: ``meta_info.routed_experts`` of its own interface, ``sglext`` of the OpenAI
kind (``sgl_ext`` in earlier versions), where a response of several choices has the routing of one only. Dynamo passes
the text on as ``nvext.routed_experts`` (``components/src/dynamo/sglang``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from traces.decoding.files import TraceFile
from traces.decoding.json_objects import split_objects
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.answers import FIELD, routed_fields
from traces.formats.shared.routed import Routed, decode_base64, open_routed, place_rows, token_counts
from traces.support.errors import InputError, Violations
from traces.trace import Trace

__all__ = ["READER"]

EXTENSIONS = ("sglext", "sgl_ext")
HOLDERS = ("meta_info", "nvext", "nvext.engine_data", *EXTENSIONS, "choices.meta_info", "choices.sglext")
PLACES = frozenset(f"{holder}.{FIELD}" for holder in (*HOLDERS, "choices.sgl_ext"))


@dataclass
class _Told:
    """What a pass over the responses finds for the notes."""

    skipped: int = 0
    unsent: int = 0

    def notes(self) -> tuple[str, ...]:
        """Return the notes."""
        told = []
        if self.skipped:
            told.append(f"{self.skipped} responses have no {FIELD}.")
        if self.unsent:
            told.append(
                f"{self.unsent} choices have no {FIELD}: of several choices of a request, SGLang sends the routing of "
                "the first only. Ask for one choice per request (n = 1) to record them all."
            )
        return tuple(told)


def open_sglang(file: TraceFile, hints: Hints) -> Trace:
    """Open responses; all is read once, to tell dense layers from others."""
    found = Violations()
    detail = "SGLang sends numbers without their shape."
    if hints.model is None:
        found.add("model_needed", "/model", detail, "Give `model`, its config.json, or its layers (`num_layers`).")
    if hints.experts_per_token is None:
        found.add("top_k_needed", "/top_k", detail, "Give `model`, its config.json, or `top_k`, the experts per token.")
    found.raise_if_any()
    assert hints.model is not None
    assert hints.experts_per_token is not None
    shape = (hints.model.num_layers, hints.experts_per_token)
    told = _Told()
    return open_routed(
        file, hints, READER.name, lambda _: _responses(file, shape, told), by_response=True, notes=told.notes
    )


def _responses(file: TraceFile, shape: tuple[int, int], told: _Told) -> Iterator[Routed]:
    told.skipped = told.unsent = 0
    with file.open() as stream:
        for place, response in split_objects(stream, file.name):
            there = 0
            for where, holder, usage in _holders(response):
                text = holder.get(FIELD)
                if text is None:
                    continue
                there += 1
                pointer = f"{place}/{where}/{FIELD}"
                data = decode_base64(text, pointer)
                if len(data) % (4 * shape[0] * shape[1]):
                    raise InputError.of(
                        "routed_shape",
                        pointer,
                        f"{len(data)} bytes are no whole rows of {shape[0]} layers with {shape[1]} int32 each.",
                        "Check that `model` (`num_layers`) and `top_k` are those of the model that answered; a fused "
                        "shared expert is one more of the experts per token (`top_k`).",
                    )
                ids = np.frombuffer(data, "<i4").astype(np.int32).reshape(-1, *shape)
                yield place_rows(ids, pointer, token_counts(usage))
            told.skipped += not there
            if there:
                told.unsent += max(len(_choices(response)) - there, 0)


def _choices(response: dict[str, Any]) -> list[Any]:
    choices = response.get("choices")
    return choices if isinstance(choices, list) else []


def _holders(response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the objects that may hold the field, with the token counts that belong to them."""
    if isinstance(meta := response.get("meta_info"), dict):
        yield "meta_info", meta, meta
    choices = _choices(response)
    usage = response.get("usage") if len(choices) == 1 else None
    for name in EXTENSIONS:
        if isinstance(extension := response.get(name), dict):
            yield name, extension, usage
    if isinstance(envelope := response.get("nvext"), dict):
        inner = envelope.get("engine_data")
        if envelope.get(FIELD) is not None or not isinstance(inner, dict):
            yield "nvext", envelope, usage
        else:
            yield "nvext/engine_data", inner, usage
    for number, choice in enumerate(choices):
        if not isinstance(choice, dict):
            continue
        for name in EXTENSIONS:
            if isinstance(extension := choice.get(name), dict):
                yield f"choices/{number}/{name}", extension, usage
        if isinstance(meta := choice.get("meta_info"), dict):
            yield f"choices/{number}/meta_info", meta, meta


def sniff(file: TraceFile) -> bool:
    """Recognise responses with the field as text."""
    return any(place in PLACES and form == "text" for place, form in routed_fields(file))


READER = Reader(
    name="sglang_routed_experts",
    engine="sglang",
    content="SGLang routed_experts in JSON responses, also through Dynamo; needs the model's layers and top-k",
    sniff=sniff,
    open=open_sglang,
)

"""SGLang's `routed_experts`: responses with raw int32 in base64, whose layers and top-k the caller has to state.

Layers are all those of the model, dense ones all zero; ids are logical.

References
----------
SGLang 0.5.23, ``return_routed_experts``: ``meta_info.routed_experts`` of its own interface, or ``sgl_ext``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from traces.decoding.files import TraceFile
from traces.decoding.json_objects import first_keys, split_objects
from traces.formats.reader import Hints, Reader
from traces.formats.shared.routed import Routed, decode_base64, open_routed, place_rows, token_counts
from traces.support.errors import InputError, Violations
from traces.trace import Trace

__all__ = ["READER"]

FIELDS = frozenset({"meta_info.routed_experts", "sgl_ext.routed_experts", "choices.sgl_ext.routed_experts"})


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
    skipped = [0]
    return open_routed(
        file,
        hints,
        READER.name,
        lambda _: _responses(file, shape, skipped),
        by_response=True,
        notes=lambda: (f"{skipped[0]} responses have no routed_experts.",) if skipped[0] else (),
    )


def _responses(file: TraceFile, shape: tuple[int, int], skipped: list[int]) -> Iterator[Routed]:
    skipped[0] = 0
    with file.open() as stream:
        for place, response in split_objects(stream, file.name):
            there = False
            for where, holder, usage in _holders(response):
                text = holder.get("routed_experts")
                if text is None:
                    continue
                there = True
                pointer = f"{place}/{where}/routed_experts"
                data = decode_base64(text, pointer)
                if len(data) % (4 * shape[0] * shape[1]):
                    raise InputError.of(
                        "routed_shape",
                        pointer,
                        f"{len(data)} bytes are no whole rows of {shape[0]} layers with {shape[1]} int32 each.",
                        "Check that `model` (`num_layers`) and `top_k` are those of the model that answered.",
                    )
                ids = np.frombuffer(data, "<i4").astype(np.int32).reshape(-1, *shape)
                yield place_rows(ids, pointer, token_counts(usage))
            skipped[0] += not there


def _holders(response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the objects that may hold the field, with the token counts that belong to them."""
    if isinstance(meta := response.get("meta_info"), dict):
        yield "meta_info", meta, meta
    choices = response.get("choices")
    choices = choices if isinstance(choices, list) else []
    usage = response.get("usage") if len(choices) == 1 else None
    if isinstance(extension := response.get("sgl_ext"), dict):
        yield "sgl_ext", extension, usage
    for number, choice in enumerate(choices):
        if isinstance(choice, dict) and isinstance(extension := choice.get("sgl_ext"), dict):
            yield f"choices/{number}/sgl_ext", extension, usage


def sniff(file: TraceFile) -> bool:
    """Recognise responses with the field."""
    return file.head.lstrip()[:1] in (b"{", b"[") and bool(first_keys(file) & FIELDS)


READER = Reader(
    name="sglang_routed_experts",
    engine="sglang",
    content="SGLang routed_experts in JSON responses; needs the model's layers and top-k",
    sniff=sniff,
    open=open_sglang,
)

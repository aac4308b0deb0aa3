"""vLLM's `routed_experts`: a `.npy` array (tokens, layers, top-k), or responses with such arrays in base64.

Layers are all those of the model, dense ones all zero; ids are logical.

References
----------
vLLM 0.33, ``--enable-return-routed-experts``; streamed answers have the field in the last line of a choice only.
ATOM returns the same array (pull request 2274), TensorRT-LLM's Router Replay one of MoE layers only (pull request
18397).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from traces.decoding.files import TraceFile
from traces.decoding.json_objects import split_objects
from traces.decoding.npy import MAGIC, ArrayStream, open_npy
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.answers import FIELD, routed_fields
from traces.formats.shared.matrices import npy_kind
from traces.formats.shared.routed import Routed, decode_base64, open_routed, place_rows, token_counts
from traces.formats.vllm import dynamo
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READER"]


def open_vllm(file: TraceFile, hints: Hints) -> Trace:
    """Open an array or responses; all is read once, to tell dense layers from others."""
    if hints.model is not None and hints.model.zero_experts:
        detail = (
            f"The model has {hints.model.zero_experts} zero-computation experts, and vLLM writes id 0 for each of "
            "them: they can't be told from expert 0."
        )
        remedy = "Record with an engine that keeps their ids, such as SGLang, and give `ids_beyond_experts` none."
        raise InputError.of("zero_experts_lost", file.name, detail, remedy)
    if file.head.startswith(MAGIC):
        return open_routed(file, hints, READER.name, lambda step: _array(file, step), by_response=False)
    skipped = [0]
    return open_routed(
        file,
        hints,
        READER.name,
        lambda _: _responses(file, skipped),
        by_response=True,
        notes=lambda: (f"{skipped[0]} choices have no routed_experts.",) if skipped[0] else (),
    )


def _array(file: TraceFile, step: int) -> Iterator[Routed]:
    with file.open() as stream:
        array = open_npy(file, stream)
        if array.header.ndim != 3:
            raise InputError.of(
                "routed_shape",
                file.name,
                f"Shape {array.header.shape} is not (tokens, layers, top-k).",
                "Save the array as it came.",
            )
        for ids in array.batches(step):
            yield Routed(ids=ids, place=file.name)


def _responses(file: TraceFile, skipped: list[int]) -> Iterator[Routed]:
    skipped[0] = 0
    with file.open() as stream:
        for place, response in split_objects(stream, file.name):
            choices = response.get("choices")
            if choices is None and (response.get("error") or response.get("object") == "error"):
                skipped[0] += 1  # what the server answers to a request that failed
                continue
            if not isinstance(choices, list):
                raise InputError.of("response_schema", place, "The response has no choices.", "Copy it as it is.")
            counts = token_counts(response.get("usage")) if len(choices) == 1 else None
            if (forwarded := dynamo.envelope(response, place)) is not None:
                yield dynamo.decoded(*forwarded, counts)
                skipped[0] += max(len(choices) - 1, 0)
                continue
            for number, choice in enumerate(choices):
                text = choice.get(FIELD) if isinstance(choice, dict) else None
                if text is None:
                    skipped[0] += 1
                    continue
                where = f"{place}/choices/{number}/{FIELD}"
                yield place_rows(_decoded(text, where), where, counts)


def _decoded(text: Any, place: str) -> Any:
    data = decode_base64(text, place)
    return ArrayStream(io.BytesIO(data), len(data), place).whole()


def sniff(file: TraceFile) -> bool:
    """Recognise a `.npy` of integers with three axes, and responses with the field."""
    if file.head.startswith(MAGIC):
        return npy_kind(file) == "routed"
    fields = routed_fields(file)
    return (f"choices.{FIELD}", "text") in fields or bool(dynamo.PLACES & fields)


READER = Reader(
    name="vllm_routed_experts",
    engine="vllm",
    content="vLLM routed_experts as .npy (tokens, layers, top-k) or JSON responses, also through Dynamo",
    sniff=sniff,
    open=open_vllm,
)

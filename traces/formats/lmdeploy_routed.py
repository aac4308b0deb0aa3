"""LMDeploy's `routed_experts`: responses with nested lists (tokens, layers, top-k).

Layers are all those of the model, dense ones all zero; ids are logical. The lists stand in ``meta_info`` of an answer
of its own interface, in a choice of the OpenAI kind, or in a message of the Anthropic kind.

References
----------
LMDeploy 0.18.0, ``--enable-return-routed-experts`` and ``return_routed_experts``: ``lmdeploy/serve/openai/protocol.py``
and ``lmdeploy/serve/anthropic/protocol.py``. Rows start with the prompt; streamed answers have them at the end only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from traces.decoding.files import TraceFile
from traces.decoding.json_objects import split_blocks
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.answers import FIELD, nested_ids, routed_fields
from traces.formats.shared.routed import Routed, open_routed, token_counts
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READER"]

PLACES = frozenset({f"meta_info.{FIELD}", f"choices.{FIELD}", FIELD})


def open_lmdeploy(file: TraceFile, hints: Hints) -> Trace:
    """Open responses; all is read once, to tell dense layers from others."""
    skipped = [0]
    return open_routed(
        file,
        hints,
        READER.name,
        lambda _: _responses(file, skipped),
        by_response=True,
        notes=lambda: (f"{skipped[0]} responses have no {FIELD}.",) if skipped[0] else (),
    )


def _responses(file: TraceFile, skipped: list[int]) -> Iterator[Routed]:
    skipped[0] = 0
    with file.open() as stream:
        for place, response in split_blocks(stream, file.name, FIELD):
            there = False
            for where, holder, usage in _holders(response):
                value = holder.get(FIELD)
                if value is None:
                    continue
                pointer = f"{place}/{where}{FIELD}"
                if isinstance(value, str):
                    detail = "This is the name of an object in Ray's store, not the routed experts themselves."
                    raise InputError.of("routed_reference", pointer, detail, "Serve without sharing objects by Ray.")
                there = True
                ids = nested_ids(value, pointer)
                if ids is None:
                    continue
                counts = token_counts(usage)
                yield Routed(
                    ids=ids,
                    place=pointer,
                    first=None if counts is None else 0,
                    prompt=None if counts is None else counts[0],
                )
            skipped[0] += not there


def _holders(response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the objects that may hold the field, with the token counts that belong to them."""
    if isinstance(meta := response.get("meta_info"), dict):
        yield "meta_info/", meta, meta
    usage = response.get("usage")
    yield "", response, usage
    choices = response.get("choices")
    choices = choices if isinstance(choices, list) else []
    for number, choice in enumerate(choices):
        if isinstance(choice, dict):
            yield f"choices/{number}/", choice, usage if len(choices) == 1 else None


def sniff(file: TraceFile) -> bool:
    """Recognise responses with the field as lists."""
    return any(place in PLACES and form == "lists" for place, form in routed_fields(file))


READER = Reader(
    name="lmdeploy_routed_experts",
    content="LMDeploy routed_experts in JSON responses, as nested lists",
    sniff=sniff,
    open=open_lmdeploy,
)

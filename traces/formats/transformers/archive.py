"""Router logits or indices of a transformers model as an `.npz`, with the attention mask that tells padding.

    outputs = model(**inputs, output_router_logits=True)
    np.savez("trace.npz", router_logits=np.stack([layer.float().numpy() for layer in outputs.router_logits]),
             attention_mask=inputs["attention_mask"], top_k=model.config.num_experts_per_tok,
             model_type=model.config.model_type)

``router_logits`` is (L, B S, E); ``router_indices``, what a hook records, (L, B S, K); ``attention_mask`` (B, S).
The experts that a token used are the k largest logits only where the router is a plain softmax: one with a sigmoid, a
bias or groups of experts (DeepSeek-V3) chooses otherwise, so its logits are refused.

References
----------
https://huggingface.co/docs/transformers, ``MoeModelOutputWithPast.router_logits``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.batch import Batch
from traces.decoding.archive import Archive, open_archive
from traces.decoding.files import TraceFile, tokens_per_batch
from traces.decoding.npz_keys import TRANSFORMERS, is_foreign, npz_keys
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.transformers.selection import Selection
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READER", "SOFTMAX_MODELS"]

# Models whose router takes the k largest of its logits, without bias, groups or another rule.
SOFTMAX_MODELS = frozenset(
    {"dbrx", "gpt_oss", "granitemoe", "jamba", "jetmoe", "minimax", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"}
)
KNOWN = ("attention_mask", "top_k", "num_experts_per_tok", "scoring_func", "model_type", "layer_ids", "num_experts")
MOST_POSITIONS = 1 << 24  # of one file; their numbers are held in memory
REMEDY = (
    "Record the indices that the router returns (traces.capture, or a hook that saves router_indices); "
    "for a plain softmax router, save scoring_func='softmax' in the archive."
)


def open_transformers(file: TraceFile, hints: Hints) -> Trace:
    """Open a capture; the experts are picked, into a temporary file, when it is first read."""
    with file.open() as stream, open_archive(stream, file.name) as archive:
        names = sorted(TRANSFORMERS & set(archive.keys))
        if len(names) != 1:
            raise InputError.of(
                "topk_ids_missing", file.name, f"Expected one of {sorted(TRANSFORMERS)}.", "Save one of them."
            )
        name = names[0]
        header, place = archive.header(name), f"{file.name}#/{name}"
        if header.ndim != 3 or 0 in header.shape:
            raise InputError.of(
                "topk_ids_shape",
                place,
                f"Shape {header.shape} is not (layers, batch x sequence, experts).",
                "Stack the layers of the tuple.",
            )
        layers, positions, width = header.shape
        if logits := name == "router_logits":
            _check_router(archive, file.name)
        if header.dtype.kind not in ("f" if logits else "iu"):
            raise InputError.of(
                "topk_ids_dtype", place, f"Type {header.dtype}.", "Logits are floats, indices integers."
            )
        top_k = _top_k(archive, hints, file.name) if logits else width
        kept, columns = _mask(archive, positions, file.name)
        layer_ids = _vector(archive, "layer_ids", layers, file.name)
        experts = _scalar(archive, "num_experts", file.name)
        left_out = [key for key in archive.keys if key != name and key not in KNOWN]
    if logits and experts not in (None, width):
        detail = f"num_experts is {experts}, but there are {width} logits."
        raise InputError.of("num_experts_differ", place, detail, "Correct `num_experts`.")
    checks.check_ids_shape((len(kept), layers, top_k), np.dtype(np.int64), f"{file.name}#")
    tokens_per_batch(1, layers * top_k * 8, file.name)
    selection = Selection(file=file, key=name, kept=kept, top_k=top_k)

    def read(max_tokens: int) -> Iterator[Batch]:
        step = tokens_per_batch(max_tokens, layers * top_k * 8, file.name)
        for start in range(0, len(kept), step):
            stop = min(start + step, len(kept))
            part = {column: values[start:stop] for column, values in columns.items()}
            yield Batch(topk_ids=selection.rows(start, stop), rows=np.arange(start, stop), **part)

    axes = Axes.settle(
        file,
        hints,
        layers,
        lambda: max((int(batch.topk_ids.max()) for batch in read(1 << 16)), default=-1),
        layer_ids=layer_ids,
        num_experts=width if logits else experts,
    )
    notes = [f"Array {key!r} was left out." for key in left_out[:8]]
    if padding := positions - len(kept):
        notes.append(f"{padding} of {positions} positions are padding and were left out.")
    if logits:
        notes.append(f"Experts are the {top_k} largest logits of each token.")
    return axes.trace(
        file,
        "transformers",
        tuple(notes),
        top_k=top_k,
        num_tokens=len(kept),
        columns=frozenset(columns),
        read=read,
    )


def _check_router(archive: Archive, name: str) -> None:
    """Refuse logits of routers that don't choose by them alone, or don't say how they choose."""
    scoring, model = _text(archive, "scoring_func", name), _text(archive, "model_type", name)
    if scoring == "softmax" or (scoring is None and model in SOFTMAX_MODELS):
        return
    if scoring is not None:
        what = f"A router with scoring {scoring[:40]!r} does not choose by its logits alone."
    elif model is not None:
        what = f"Whether the router of {model[:40]!r} chooses by its logits alone is not known."
    else:
        what = "The archive does not say how the router chooses (model_type, scoring_func)."
    raise InputError.of("router_unknown", f"{name}#/router_logits", what, REMEDY)


def _top_k(archive: Archive, hints: Hints, name: str) -> int:
    stated = [_scalar(archive, key, name) for key in ("top_k", "num_experts_per_tok")]
    given = {value for value in (*stated, hints.experts_per_token) if value is not None}
    if len(given) != 1:
        what = f"top_k is given as {sorted(given)}." if given else "Logits don't say how many experts a token uses."
        raise InputError.of("top_k_range", f"{name}#/top_k", what, "Save top_k in the archive, or give `top_k`.")
    return given.pop()


def _mask(archive: Archive, positions: int, name: str) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]:
    """Return the positions that hold tokens, and their columns."""
    place = f"{name}#/attention_mask"
    if "attention_mask" not in archive.keys:
        raise InputError.of(
            "attention_mask_missing",
            place,
            "Without the attention mask, padding can't be told from tokens.",
            "Save the tokenizer's attention_mask; without padding, numpy.ones((batch, sequence)).",
        )
    stream = archive.stream("attention_mask")
    shape = stream.header.shape
    if len(shape) != 2 or shape[0] * shape[1] != positions or stream.header.dtype.kind not in "iub":
        raise InputError.of(
            "column_shape", place, f"Shape {shape} does not give {positions} positions.", "Save (batch, sequence)."
        )
    if positions > MOST_POSITIONS:
        raise InputError.of("too_large", place, f"{positions} positions.", f"Save at most {MOST_POSITIONS} at once.")
    mask = stream.whole()
    if not np.isin(mask, (0, 1)).all():
        raise InputError.of("column_range", place, "The mask holds more than 0 and 1.", "Save the tokenizer's mask.")
    real = mask.astype(bool)
    place_in_row = np.cumsum(real, axis=1, dtype=np.int32) - np.int32(1)
    sequence = np.broadcast_to(np.arange(shape[0])[:, np.newaxis], shape)
    kept = np.flatnonzero(real)
    if not kept.size:
        raise InputError.of("zero_tokens", place, "All positions are padding.", "Check the mask.")
    return kept, {"seq_id": sequence[real].astype(np.int64), "token_pos": place_in_row[real].astype(np.int64)}


def _small(archive: Archive, key: str, shape: tuple[int, ...], name: str) -> npt.NDArray[Any] | None:
    if key not in archive.keys:
        return None
    stream = archive.stream(key)
    if stream.header.shape != shape or stream.header.data_bytes > 1 << 20:
        detail = f"Expected shape {shape}; got {stream.header.shape}."
        raise InputError.of(f"{key}_shape", f"{name}#/{key}", detail, "Save it again.")
    return stream.whole()


def _vector(archive: Archive, key: str, length: int, name: str) -> npt.NDArray[Any] | None:
    return _small(archive, key, (length,), name)


def _scalar(archive: Archive, key: str, name: str) -> int | None:
    value = _small(archive, key, (), name)
    if value is None:
        return None
    if value.dtype.kind not in "iu" or not 1 <= int(value) < 1 << 31:
        raise InputError.of(f"{key}_range", f"{name}#/{key}", f"{value!s:.40} is no number of experts.", "Correct it.")
    return int(value)


def _text(archive: Archive, key: str, name: str) -> str | None:
    value = _small(archive, key, (), name)
    if value is None:
        return None
    if value.dtype.kind != "U":
        raise InputError.of(f"{key}_type", f"{name}#/{key}", "Expected a text.", "Save a Python string.")
    return str(value)


READER = Reader(
    name="transformers",
    content=".npz of router_logits or router_indices (layers, batch x sequence, ...) with attention_mask",
    sniff=lambda file: is_foreign(file) and not npz_keys(file).isdisjoint(TRANSFORMERS),
    open=open_transformers,
)

"""From the arguments of a model's call to what they say about its tokens."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.capture.sequences import Call, Generation
from traces.support.errors import InputError

__all__ = ["read_call", "returned_cache"]

CACHE_NAMES = ("cache", "past_key_values", "cache_params")  # transformers 5.24 renamed the last two to the first


def read_call(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], generation: Generation | None) -> Call:
    """Return shape, mask, cache and token ids of a call, before it is made.

    Parameters
    ----------
    model : torch.nn.Module
        With the argument names of transformers' models; of another module the first tensor counts: (B, S) or (S,)
        integers, (B, S, H) or (S, H) floats.
    args, kwargs
        Of the call.
    generation : Generation or None
        The run of ``generate()`` that the call is part of.

    Raises
    ------
    InputError
        If the padding or the sequences can't be told.
    """
    given = _arguments(model, args, kwargs)
    tokens: Any = given.get("input_ids")
    embeds: Any = given.get("inputs_embeds")
    cache = _given_cache(given)
    if tokens is None and embeds is None:
        tensors = [value for value in given.values() if hasattr(value, "dtype")]
        if not tensors:
            raise _cannot_tell("/model", "The call has no tensor.", "Call the model with a tensor of tokens.")
        first = tensors[0]
        tokens, embeds = (None, first) if first.dtype.is_floating_point else (first, None)
    shape = tuple(embeds.shape[:-1]) if tokens is None else tuple(tokens.shape)
    if len(shape) not in (1, 2):
        raise _cannot_tell("/model", f"Tokens have shape {shape}.", "Expected rows and positions.")
    rows, width = shape if len(shape) == 2 else (1, shape[0])
    _check_one_per_row(given)
    mask = _mask(given.get("attention_mask"), rows)
    if mask is None:
        _check_rising(given.get("position_ids"))
    return Call(
        shape=(rows, width),
        mask=mask,
        past=_length(cache),
        cache=cache,
        tokens=None if tokens is None else _numpy(tokens).reshape(rows, width),
        generation=generation,
    )


def returned_cache(output: Any) -> Any:
    """Return the cache in a model's output, or None."""
    parts = output if isinstance(output, tuple) else _attributes(output)
    return next((part for part in parts if hasattr(part, "get_seq_length")), None)


def _attributes(output: Any) -> Iterator[Any]:
    named = vars(output) if hasattr(output, "__dict__") else {}
    return (getattr(output, name) for name in CACHE_NAMES if name in named)


def _given_cache(given: dict[str, Any]) -> Any:
    """Return the cache among the arguments, whatever its keyword, or None."""
    found = {name: given[name] for name in CACHE_NAMES if given.get(name) is not None}
    found |= {name: value for name, value in given.items() if hasattr(value, "get_seq_length")}
    if len({id(value) for value in found.values()}) > 1:
        raise _cannot_tell(
            f"/{list(found)[-1]}", f"The call has several caches: {', '.join(found)}.", "Call with one cache."
        )
    return next(iter(found.values()), None)


def _arguments(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind_partial(*args, **kwargs).arguments
    except TypeError:  # the call itself will fail
        return {**{str(place): value for place, value in enumerate(args)}, **kwargs}
    given: dict[str, Any] = {}
    for name, value in bound.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            given.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            given.update({str(place): part for place, part in enumerate(value)})
        else:
            given[name] = value
    return given


def _mask(mask: Any, rows: int) -> npt.NDArray[np.bool_] | None:
    if mask is None:
        return None
    if not hasattr(mask, "dtype") or mask.ndim not in (1, 2):
        shape = f"of shape {list(mask.shape)}" if hasattr(mask, "shape") else f"as a {type(mask).__name__}"
        raise _cannot_tell(
            "/attention_mask",
            f"The attention mask comes {shape}, for pairs of positions, so padding can't be told from tokens.",
            "Pass a mask (rows, positions). A static cache makes such masks too: use the dynamic one while recording.",
        )
    values: npt.NDArray[np.bool_] = _numpy(mask).reshape(rows if mask.ndim == 2 else 1, -1) != 0
    return values


def _check_one_per_row(given: dict[str, Any]) -> None:
    if given.get("cu_seq_lens_q") is not None:
        raise _cannot_tell(
            "/cu_seq_lens_q",
            "Several sequences share a row, as in continuous batching or training without padding.",
            "Use generate(), or give each sequence a row of its own, with an attention mask.",
        )


def _check_rising(positions: Any) -> None:
    if positions is None or not hasattr(positions, "ndim") or positions.ndim != 2 or positions.shape[-1] < 2:
        return
    if (np.diff(_numpy(positions), axis=-1) != 1).any():
        raise _cannot_tell(
            "/position_ids",
            "Positions start anew within a row and there is no attention mask: several sequences share a row.",
            "Give each sequence a row of its own, with an attention mask.",
        )


def _length(cache: Any) -> int:
    if cache is None:
        return 0
    if not hasattr(cache, "get_seq_length"):
        raise _cannot_tell(
            "/cache",
            f"The cache is a {type(cache).__name__}, which does not tell its length.",
            "Use a cache of transformers 5, such as DynamicCache.",
        )
    try:
        return int(cache.get_seq_length())
    except ValueError as error:  # a model whose layers all keep states in place of keys and values
        raise _cannot_tell("/cache", f"The cache does not tell its length: {error}", "Call without a cache.") from error


def _numpy(tensor: Any) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return values


def _cannot_tell(place: str, detail: str, remedy: str) -> InputError:
    return InputError.of("call_unreadable", place, detail, remedy)

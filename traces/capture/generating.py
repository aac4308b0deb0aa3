"""Knowing when ``generate()`` runs, and refusing what breaks the order of sequences."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from traces.capture.sequences import Generation
from traces.support.errors import InputError

__all__ = ["allow_reorder", "forbid_reorder", "watched_generate"]

# What makes generate() draft tokens that it may throw away again (transformers 5.24).
DRAFTING = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp", "speculation_type")


@contextmanager
def watched_generate(model: Any, tell: Callable[[Generation | None], None]) -> Iterator[None]:
    """Tell when ``model.generate`` starts and ends, as long as the block runs.

    Parameters
    ----------
    model : torch.nn.Module
        One without ``generate`` is left alone.
    tell : callable
        Called with the run, and with None at its end.
    """
    if not callable(getattr(model, "generate", None)):
        yield
        return
    original = model.generate
    before = vars(model).get("generate")

    @wraps(original)
    def generate(*args: Any, **kwargs: Any) -> Any:
        tell(_generation(model, _arguments(original, args, kwargs)))
        try:
            return original(*args, **kwargs)
        finally:
            tell(None)

    model.generate = generate
    try:
        yield
    finally:
        if before is None:
            del model.generate
        else:
            model.generate = before


def _arguments(generate: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = list(inspect.signature(generate).parameters)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _generation(model: Any, given: dict[str, Any]) -> Generation:
    configs = (given.get("generation_config"), getattr(model, "generation_config", None))

    def setting(name: str) -> Any:
        """Return what `generate` goes by: an argument, None included; else the first config that says something."""
        if name in given:
            return given[name]
        values = [getattr(config, name, None) for config in configs]
        return next((value for value in values if value is not None), None)

    def tokens(name: str) -> list[int]:
        value = setting(name)
        value = value.tolist() if hasattr(value, "tolist") else value
        return [] if value is None else [int(part) for part in (value if isinstance(value, (list, tuple)) else [value])]

    if (setting("num_beams") or 1) > 1:
        raise InputError.of(
            "beam_search",
            "/num_beams",
            "Beam search moves rows from one sequence to another, so a trace of it has no sequences.",
            "Record greedy decoding or sampling: num_beams=1.",
        )
    drafting = [name for name in DRAFTING if setting(name)]
    if drafting:
        raise InputError.of(
            "speculative_decoding",
            f"/{drafting[0]}",
            "Speculative decoding runs tokens that are thrown away again.",
            f"Record without {drafting[0]}.",
        )
    if any("Diffusion" in kind.__name__ for kind in type(model).__mro__):
        raise InputError.of(
            "diffusion",
            "/model",
            f"{type(model).__name__} runs the same positions again and again, with other tokens.",
            "Record calls of the model itself, not generate().",
        )
    ends = tokens("eos_token_id")
    if setting("stop_strings") or setting("stopping_criteria"):
        ends += tokens("pad_token_id")  # a row may end without an end token; what follows is padding
    return Generation(ends=frozenset(ends))


def forbid_reorder(cache: Any) -> None:
    """Make ``cache.reorder_cache`` raise."""
    if not hasattr(cache, "reorder_cache"):
        return

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise InputError.of(
            "cache_changed",
            "/cache",
            "The rows of the cache are reordered while recording, as beam search does.",
            "Record greedy decoding or sampling.",
        )

    cache.reorder_cache = refuse


def allow_reorder(cache: Any) -> None:
    """Undo `forbid_reorder`."""
    vars(cache).pop("reorder_cache", None)

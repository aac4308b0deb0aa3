"""What the texts of options mean: numbers, words, ``none``, layers, and ``key=value``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import typer

__all__ = ["NONE", "choice", "number", "or_none", "read_layer_ids", "read_options", "whole", "wholes"]

MAX_LAYERS = 100_000


class _None:
    """The word ``none``, which differs from an option that is not given."""

    def __repr__(self) -> str:
        return "none"


NONE = _None()


def or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser that also takes the word ``none``."""

    def read(text: str) -> Any:
        return NONE if text.strip().lower() == "none" else parse(text)

    return read


def choice(*allowed: str) -> Callable[[str], str]:
    """Return a parser that takes one of `allowed`, in any case, with hyphens or underscores."""

    def parse(text: str) -> str:
        value = text.strip().lower().replace("-", "_")
        if value not in allowed:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(name.replace('_', '-') for name in allowed)}.")
        return value

    return parse


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r:.60} is not a whole number.") from None


def wholes(text: str) -> tuple[int, ...]:
    """Read whole numbers between commas."""
    return tuple(whole(part) for part in text.split(","))


def number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r:.60} is not a number.") from None


def read_layer_ids(text: str | None, option: str = "--layer-ids") -> list[int] | None:
    """Read ``1,2,5`` and ranges such as ``1-26``; `option` is named where it is no such list."""
    if text is None:
        return None
    ids: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            start, end = int(first), int(last if dash else first)
            if not 0 <= end - start < MAX_LAYERS:
                raise ValueError(text)
            ids += range(start, end + 1)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of layers such as 1,2,5 or 1-26.", param_hint=option
        ) from None
    return ids


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value``; values are JSON where they can be, else text."""
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is not key=value.", param_hint="--option")
        if name in options:
            raise typer.BadParameter(f"{name} is given twice.", param_hint="--option")
        try:
            options[name] = json.loads(value)
        except RecursionError:
            raise typer.BadParameter(f"The value of {name} is nested too deeply.", param_hint="--option") from None
        except ValueError:
            options[name] = value
    return options

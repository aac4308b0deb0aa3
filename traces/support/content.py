"""Equality and hashes of dataclasses that hold arrays: by content, where NumPy alone would compare entry by entry."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

__all__ = ["ByContent"]

HASHED_ENTRIES = 8  # of an array: enough to tell most apart, and quick for any size


class ByContent:
    """Base of frozen dataclasses (``eq=False``) that are equal when all their compared fields are.

    Arrays are equal when shape and entries are, whatever their integer type; NaN equals NaN. The hash takes shapes and
    the first entries, so that it stays valid only as long as nobody writes to the arrays.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self is other or all(
            _same(getattr(self, item.name), getattr(other, item.name))
            for item in fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
            if item.compare
        )

    def __hash__(self) -> int:
        values = (getattr(self, item.name) for item in fields(self) if item.compare)  # type: ignore[arg-type]
        return hash((type(self), *map(_key, values)))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        both_floats = one.dtype.kind == other.dtype.kind == "f"
        return np.array_equal(one, other, equal_nan=both_floats)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return type(one) is type(other) and bool(one == other)


def _key(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.shape, tuple(value.flat[:HASHED_ENTRIES].tolist()) if value.dtype.kind in "iu" else ())
    return tuple(sorted(value)) if isinstance(value, dict) else value

"""Equality and hash by content, for frozen dataclasses that hold arrays and mappings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

__all__ = ["ByContent", "same_content"]

HASHED = 1 << 16  # entries of an array, at most


class ByContent:
    """Base of frozen dataclasses, declared with ``eq=False``, that are equal if all their fields are.

    Arrays are compared entry by entry and by shape, not by dtype; mappings and sequences by what they hold. NaN equals
    NaN. Fields that are declared with ``compare=False`` do not count. Fields must not change once an object is hashed,
    so arrays should be read-only; those of an object that was pickled are.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        return all(same_content(getattr(self, name), getattr(other, name)) for name in self._compared())

    def __hash__(self) -> int:
        return hash((type(self).__name__, *(_hashable(getattr(self, name)) for name in self._compared())))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in self._compared():
            value = getattr(self, name)
            for array in value.values() if isinstance(value, dict) else [value]:
                if isinstance(array, np.ndarray):
                    array.flags.writeable = False

    def _compared(self) -> list[str]:
        return [item.name for item in fields(self) if item.compare]  # type: ignore[arg-type]  # all are dataclasses


def same_content(a: Any, b: Any) -> bool:
    """Return whether two values are the same: arrays by entries, mappings and sequences by what they hold."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)) or a.shape != b.shape:
            return False
        floats = a.dtype.kind == b.dtype.kind == "f"
        return a is b or bool(np.array_equal(a, b, equal_nan=floats))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_content(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        # A list is what JSON makes of a tuple.
        return len(a) == len(b) and all(map(same_content, a, b))
    return bool(a == b) or (a != a and b != b)


def _hashable(value: Any) -> Hashable:
    """Return something with the same hash for equal values."""
    if isinstance(value, np.ndarray):
        # One dtype, as values are compared; -0.0 equals 0.0, whose bytes differ. Of large arrays, some entries do.
        numbers = value.ravel()[:: 1 + value.size // HASHED].astype(np.float64) + 0.0
        return (value.shape, numbers.tobytes())
    if isinstance(value, Mapping):
        return frozenset((key, _hashable(entry)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, float) and value != value:
        return "nan"
    return value if isinstance(value, Hashable) else repr(value)

"""Matrices over pairs of experts that are counted when somebody asks: of large models they take most of the memory.

Under dispatch hardly anything needs them, and with 92 layers of 896 experts they are 1.2 GB.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from traces.profile.checks import Counts
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["LARGE_BYTES", "Later", "Pairs", "size_of_pairs"]

LARGE_BYTES = 256_000_000  # of matrices from which on another pass over the trace is the lesser evil
NAMES = ("affinity", "coactivation")


class Counted(Protocol):
    """A profile."""

    @property
    def tokens(self) -> int:
        """Tokens that were counted."""

    @property
    def load(self) -> npt.NDArray[np.float64]:
        """Tokens per layer and expert, (L, E)."""


def size_of_pairs(trace: Trace) -> int:
    """Return the bytes of both matrices."""
    return 8 * trace.num_experts**2 * (2 * trace.num_layers - 1)


class Later:
    """What counts both matrices, by one more pass over the trace.

    Parameters
    ----------
    trace : Trace
        That of the profile.
    workers : int or None
        Threads.
    """

    def __init__(self, trace: Trace, workers: int | None) -> None:
        self.trace, self.workers = trace, workers
        self._lock = threading.Lock()

    def settle(self, profile: Counted) -> None:
        """Put the matrices into the profile.

        Raises
        ------
        InputError
            If the trace is not what it was.
        """
        from traces.profile.counting import count_trace  # compiles, so it is imported when tokens are counted

        with self._lock:
            if profile.__dict__[NAMES[0]] is not self:
                return
            tally = count_trace(self.trace, self.workers, (1,), 512, 0)
            if tally.tokens != profile.tokens or not np.array_equal(tally.load, profile.load):
                detail = "The trace has changed since it was profiled: its pairs of experts can't be counted any more."
                raise InputError.of("source_changed", self.trace.provenance.source, detail, "Profile it again.")
            for name in NAMES[::-1]:
                counts = getattr(tally, name)
                counts.flags.writeable = False
                profile.__dict__[name] = counts


class Pairs:
    """Attribute of a profile: a matrix, None, or `Later`, which is settled when it is first read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Pairs: ...

    @overload
    def __get__(self, instance: Any, owner: type) -> Counts | None: ...

    def __get__(self, instance: Any, owner: type) -> Pairs | Counts | None:
        if instance is None:
            raise AttributeError(self.name)  # a field without a default
        value = instance.__dict__[self.name]
        if isinstance(value, Later):
            value.settle(instance)
            value = instance.__dict__[self.name]
        counts: Counts | None = value
        return counts

    def __set__(self, instance: Any, value: Counts | Later | None) -> None:
        instance.__dict__[self.name] = value

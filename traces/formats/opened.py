"""Traces that were opened from a path pickle as that path with the reading options, not with their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from traces.batch import Batch
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["Opened"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """The tokens at a path.

    Attributes
    ----------
    again : callable
        Opens the path again, with the same options; pickles.
    trace : Trace
        As it was opened.
    """

    again: Callable[[], object]
    trace: Trace

    def read(self, max_tokens: int) -> Iterator[Batch]:
        """Yield the batches."""
        return self.trace.read(max_tokens)

    def sha256(self) -> str:
        """Hash the files."""
        return self.trace.hash_source()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_open_again, (self.again, _axes(self.trace)))


def _axes(trace: Trace) -> tuple[Any, ...]:
    return (trace.layer_ids.tolist(), trace.num_experts, trace.top_k, trace.num_tokens, trace.columns)


def _open_again(again: Callable[[], object], axes: tuple[Any, ...]) -> Opened:
    """Open the path again, where a pickled trace is unpickled.

    Raises
    ------
    InputError
        If it can't be read, or holds a trace of another size now.
    """
    trace = again()
    if not isinstance(trace, Trace) or _axes(trace) != axes:
        detail = "The trace was pickled as its path, and the file holds another one by now: its size has changed."
        place = trace.provenance.source if isinstance(trace, Trace) else "/trace"
        raise InputError.of("source_changed", place, detail, "Load it anew, and pickle that.")
    return Opened(again=again, trace=trace)

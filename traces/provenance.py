"""Where a trace comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traces.held_ranks import Ranks

__all__ = ["Provenance"]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a trace comes from.

    Attributes
    ----------
    source : str
        File name, or ``memory``.
    format : str
        Name of the reader, or of the function that made the trace.
    engine : str or None
        Name of the serving engine whose format that is, such as ``sglang``; None where anything may write it.
    notes : tuple of str
        What was inferred, dropped or selected on the way, as sentences.
    experts_inferred : bool
        Whether nobody states the number of experts: it is the largest id plus one.
    ranks : tuple of int
        Ranks whose files were read, of formats that have a file per rank; empty for others.
    full_buffer : int or None
        Passes that a recorder's buffer holds, where all of them are used: it may have wrapped.
    beyond : str
        What was read as no routed expert, as the format tells it, in a sentence; empty where nothing was.
    held : Ranks or None
        Ranks whose physical slots alone have tokens, of formats that count slots.
    """

    source: str = "memory"
    format: str = "arrays"
    engine: str | None = None
    notes: tuple[str, ...] = ()
    experts_inferred: bool = False
    full_buffer: int | None = None
    ranks: tuple[int, ...] = ()
    held: Ranks | None = None
    beyond: str = ""

    def __str__(self) -> str:
        return f"{self.source} ({self.format}{f', {self.engine}' if self.engine else ''})"

    def of_ranks(self, ranks: Iterable[int]) -> Provenance:
        """Return the same with the ranks whose files were read."""
        return replace(self, ranks=tuple(sorted(set(ranks))))

    def without_beyond(self, what: str) -> Provenance:
        """Return the same, noting what was read as no routed expert; nothing was if `what` is empty."""
        return replace(self, beyond=what, notes=(*self.notes, *([what] if what else [])))

    def noting(self, *notes: str) -> Provenance:
        """Return the same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

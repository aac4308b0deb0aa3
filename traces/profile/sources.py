"""What a profile was counted from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from traces.held_ranks import Ranks
from traces.provenance import Provenance

__all__ = ["ProfileSource"]


@dataclass(frozen=True, kw_only=True)
class ProfileSource:
    """One trace that went into a profile.

    Attributes
    ----------
    digest : str
        Of its content: `Trace.digest`.
    source : str
        File name, or ``memory``.
    tokens : int
        Tokens that were counted; 0 where only loads are known.
    format : str
        Name of the reader, or of the function that made the trace.
    engine : str or None
        Name of the serving engine whose format that is; None where anything may write it.
    notes : tuple of str
        What its reader had to tell.
    unrecorded : tuple of int
        Layers of the model that are there without any count: `LoadCounts.unrecorded`.
    ranks, held, full_buffer, beyond
        What else the doctor asks about: see `Provenance`.
    """

    digest: str
    source: str
    tokens: int
    format: str = "arrays"
    engine: str | None = None
    notes: tuple[str, ...] = ()
    unrecorded: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
    held: Ranks | None = None
    full_buffer: int | None = None
    beyond: str = ""

    def __post_init__(self) -> None:
        for name in ("notes", "unrecorded", "ranks"):  # lists, where they come from a file
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.held is not None:
            there, ranks, size, dealt = self.held
            object.__setattr__(self, "held", Ranks(tuple(there), ranks, size, dealt))

    @classmethod
    def of(
        cls,
        provenance: Provenance,
        digest: str,
        tokens: int,
        notes: tuple[str, ...],
        unrecorded: tuple[int, ...] = (),
    ) -> ProfileSource:
        """Return the source that a provenance describes, with the notes of a whole pass in place of its own."""
        return cls(
            digest=digest,
            source=provenance.source,
            tokens=tokens,
            format=provenance.format,
            engine=provenance.engine,
            notes=notes,
            unrecorded=unrecorded,
            ranks=provenance.ranks,
            held=provenance.held,
            full_buffer=provenance.full_buffer,
            beyond=provenance.beyond,
        )

    @property
    def key(self) -> tuple[Any, ...]:
        """The order of sources in a profile: total, so that merging does not depend on the order of merging."""
        told = (self.ranks, self.held or (), self.full_buffer or 0, self.beyond)
        return (
            self.digest,
            self.source,
            self.tokens,
            self.notes,
            self.format,
            self.engine or "",
            self.unrecorded,
            told,
        )

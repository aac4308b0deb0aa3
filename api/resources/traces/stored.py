"""A stored trace, as a helper process opens it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from api.resources.traces.inspection import open_stored
from api.settings.settings import Settings
from api.store.remote_blobs import open_blobs
from api.store.rows import TraceRow
from solvers.sources.source import Source

__all__ = ["StoredTrace"]


@dataclass(frozen=True, kw_only=True)
class StoredTrace:
    """Where a trace is kept, and what is known of it; pickles.

    Attributes
    ----------
    blobs : Path
    blobs_url : str or None
    id : str
    name : str or None
    facts : mapping
        See `api.resources.traces.inspection.inspect`.
    """

    blobs: Path
    blobs_url: str | None
    id: str
    name: str | None
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, settings: Settings, row: TraceRow) -> Self:
        """Tell of a row of the store."""
        blobs = (settings.data_dir / "blobs").absolute()
        return cls(blobs=blobs, blobs_url=settings.blobs_url, id=row.id, name=row.name, facts=row.facts)

    def open(self) -> Source:
        """Fetch and open it.

        Raises
        ------
        InputError
            If the stored file can't be read any more.
        """
        path = open_blobs(self.blobs, self.blobs_url).fetch(self.id)
        return open_stored(path, self.id, self.name, self.facts)

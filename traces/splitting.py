"""What is held out of a trace: sequences, the end of the recording, or whole sources (data sets, tasks, files).

Sequences of one recording are alike, so that a plan holds on those held out where it does not on other tasks, or later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from traces.batch import Batch
from traces.support.errors import InputError
from traces.tokens import OfSequences

if TYPE_CHECKING:
    from traces.provenance import Provenance
    from traces.support.words import HoldOutBy

__all__ = ["FromRow", "OfSources", "Parts", "no_sources", "parts_of"]

LEAST = 2  # sources that can be split
SHOWN = 8


class Tokens(Protocol):
    """What is split: a `traces.Trace`."""

    @property
    def columns(self) -> frozenset[str]:
        """Optional columns that are present."""
        ...

    @property
    def provenance(self) -> Provenance:
        """Where the tokens come from."""
        ...

    @property
    def read(self) -> Callable[[int], Iterator[Batch]]:
        """Yields unchecked batches from the start."""
        ...


@dataclass(frozen=True, kw_only=True)
class FromRow:
    """Whether tokens are of the end of the recording, or of what comes before.

    Attributes
    ----------
    row : int
        First row that is held out.
    held_out : bool
        Which part is meant.
    """

    row: int
    held_out: bool

    def __call__(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return the mask of a batch's tokens, (T,)."""
        mask: npt.NDArray[np.bool_] = (batch.rows >= self.row) == self.held_out
        return mask


@dataclass(frozen=True, kw_only=True)
class OfSources:
    """Whether tokens are of the sources that are held out, or of the others.

    Attributes
    ----------
    sources : tuple of int
        Those held out.
    held_out : bool
        Which part is meant.
    """

    sources: tuple[int, ...]
    held_out: bool

    def __call__(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return the mask of a batch's tokens, (T,)."""
        mask: npt.NDArray[np.bool_] = np.isin(np.asarray(batch.data_source), self.sources) == self.held_out
        return mask


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which tokens are fitted and which are held out, with a note on each."""

    fit: Callable[[Batch], npt.NDArray[np.bool_]]
    held_out: Callable[[Batch], npt.NDArray[np.bool_]]
    fit_note: str
    held_note: str


def parts_of(trace: Tokens, share: float, by: HoldOutBy) -> Parts:
    """Return the parts of a trace; all but sequences take a pass over it.

    Parameters
    ----------
    trace : Tokens
    share : float
        Held out, 0 < f < 1.
    by : {"sequence", "time", "source"}
        See `Trace.split`.

    Raises
    ------
    InputError
        If the trace does not tell sources, or has one only; or its rows are in no order.
    """
    if by == "time":
        return _by_time(trace, share)
    if by == "source":
        return _by_source(trace, share)
    unit = "seq_id" if "seq_id" in trace.columns else "blocks of 64 tokens, as the trace has no seq_id"
    return Parts(
        fit=OfSequences(share=share, held_out=False),
        held_out=OfSequences(share=share, held_out=True),
        fit_note=f"fit part: all but {share:g} of {unit}",
        held_note=f"held-out part: {share:g} of {unit}",
    )


def no_sources(place: str, found: int) -> InputError:
    """Return the error on a trace that has no sources to hold out."""
    what = "does not say which source its tokens come from" if not found else "has tokens of one source only"
    remedy = "Give several files (a folder, or a tar of them) or the column `data_source`; or leave `hold_out_by` out."
    return InputError.of("no_sources", "/hold_out_by", f"{place} {what}.", remedy)


def _by_time(trace: Tokens, share: float) -> Parts:
    kept, last = list[npt.NDArray[np.int64]](), -1
    for batch in trace.read(1 << 15):
        if not len(batch):
            continue
        if int(batch.rows[0]) <= last or (np.diff(batch.rows) <= 0).any():
            detail = f"The rows of {trace.provenance.source} are not in the order of the recording."
            raise InputError.of("no_time", "/hold_out_by", detail, "Hold out by sequence: leave `hold_out_by` out.")
        last = int(batch.rows[-1])
        kept.append(batch.rows)
    rows = np.concatenate([*kept, np.zeros(0, np.int64)])
    wanted = min(max(1, len(rows) - round(share * len(rows))), max(len(rows) - 1, 0))
    first = int(rows[wanted]) if len(rows) else 0
    return Parts(
        fit=FromRow(row=first, held_out=False),
        held_out=FromRow(row=first, held_out=True),
        fit_note=f"fit part: the first {wanted:,} tokens in the order of the recording",
        held_note=f"held-out part: the last {len(rows) - wanted:,} tokens, from row {first} on",
    )


def _by_source(trace: Tokens, share: float) -> Parts:
    if "data_source" not in trace.columns:
        raise no_sources(trace.provenance.source, 0)
    seen = set[int]()
    for batch in trace.read(1 << 15):
        seen.update(np.unique(np.asarray(batch.data_source)).tolist())
    if len(seen) < LEAST:
        raise no_sources(trace.provenance.source, len(seen))
    ordered = sorted(seen)
    later = min(len(ordered) - 1, max(1, round(share * len(ordered))))
    held = tuple(ordered[-later:])
    listed = ", ".join(map(str, held[:SHOWN])) + (", ..." if later > SHOWN else "")
    return Parts(
        fit=OfSources(sources=held, held_out=False),
        held_out=OfSources(sources=held, held_out=True),
        fit_note=f"fit part: all but the last {later} of {len(ordered)} sources",
        held_note=f"held-out part: the last {later} of {len(ordered)} sources (`data_source` {listed})",
    )

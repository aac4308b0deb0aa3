"""Reading traces: one module per format, each with a `Reader`, all listed in `registry`."""

from __future__ import annotations

from pathlib import Path

import numpy.typing as npt

from traces.errors import InputError
from traces.readers.base import Hints, Reader
from traces.readers.files import TraceFile
from traces.readers.registry import READERS
from traces.trace import LoadCounts, Trace

__all__ = ["READERS", "Reader", "load"]


def load(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002  the word that users expect
    num_experts: int | None = None,
    layer_ids: npt.ArrayLike | None = None,
) -> Trace | LoadCounts:
    """Open a trace file. Its format is found by content.

    Nothing but metadata is read, except where the file does not state what a trace has to know: then it is read once,
    in constant memory, and the provenance has a note. The tokens are checked as they are read (`Trace.batches`).

    Parameters
    ----------
    path : path
        A regular file; it is opened again for every pass and must not change meanwhile.
    format : str, optional
        Name of a reader: ``npz``, ``jsonl``, ``parquet``, ``exflow``, ``eplb``. By default, the one that recognises it.
    num_experts : int, optional
        Experts per layer, for files that don't state it. By default, the largest id plus one.
    layer_ids : (L,) integers, optional
        Model layers, for files that don't state them. By default, 0..L-1.

    Returns
    -------
    Trace or LoadCounts
        Counts for formats that give tokens per expert without token identity.

    Raises
    ------
    InputError
        If the file can't be read, is damaged or ambiguous, or breaks a rule of its format.
    """
    file = TraceFile.of(path)
    hints = Hints(num_experts=num_experts, layer_ids=layer_ids)
    if format is not None:
        named = next((reader for reader in READERS if reader.name == format), None)
        if named is None:
            raise InputError.of("unknown_format", "/format", f"There is no format {format!r}.", _formats())
        return named.open(file, hints)
    recognised = next((reader for reader in READERS if reader.sniff(file)), None)
    if recognised is None:
        raise InputError.of("unknown_format", file.name, "The content is no known trace format.", _formats())
    return recognised.open(file, hints)


def _formats() -> str:
    return "Formats: " + "; ".join(f"{reader.name} ({reader.content})" for reader in READERS) + "."

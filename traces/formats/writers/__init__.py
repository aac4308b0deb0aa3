"""Writing traces: one module per format, chosen by the suffix of the file."""

from __future__ import annotations

from pathlib import Path

from traces.formats.writers import jsonl, npz, parquet
from traces.formats.writers.base import Survey, Writer
from traces.support.atomic import atomic_write
from traces.support.errors import InputError
from traces.support.kinds import checked
from traces.trace import Trace

__all__ = ["WRITERS", "save"]

WRITERS: dict[str, Writer] = {".npz": npz.write, ".jsonl": jsonl.write, ".parquet": parquet.write}


@checked
def save(trace: Trace, path: str | Path, *, compress: bool = True) -> None:
    """Write a trace whole or not at all, in constant memory.

    The trace is read once to check it and to find the number of tokens and the smallest integer type, and again to
    write (`.npz`: once per column). Loading the file gives the same trace. Only the provenance is not kept, nor, in
    JSON Lines, gate weights of missing entries that are not finite (written as 0).

    Parameters
    ----------
    trace : Trace
    path : path
        The suffix chooses the format: ``.npz``, ``.jsonl`` or ``.parquet``.
    compress : bool
        False gives larger files that read faster; JSON Lines is never compressed.

    Raises
    ------
    InputError
        If the suffix is unknown, the folder can't be written, or the trace breaks a rule.
    """
    target = Path(path)
    write = WRITERS.get(target.suffix.lower())
    if write is None:
        raise InputError.of(
            "unknown_format",
            target.name,
            f"Can't tell the format from {target.suffix!r}.",
            f"Use one of {', '.join(WRITERS)}.",
        )
    survey = Survey.of(trace)
    with atomic_write(target) as file:
        write(trace, survey, file, compress)

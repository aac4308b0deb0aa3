"""The names of a Parquet file's columns, which tell its formats apart."""

from __future__ import annotations

from traces.decoding.files import TraceFile

__all__ = ["PARQUET", "parquet_columns"]

PARQUET = b"PAR1"


def parquet_columns(file: TraceFile) -> frozenset[str]:
    """Return the names of the columns; empty if the file is no Parquet that can be read, or pyarrow is not installed.

    What is wrong with such a file is said by the reader that takes Parquet in general.
    """
    if not file.head.startswith(PARQUET):
        return frozenset()
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_schema
    except ImportError:
        return frozenset()
    try:
        with file.open() as stream:
            return frozenset(read_schema(stream).names)
    except (ArrowException, OSError, ValueError, KeyError, TypeError):
        return frozenset()

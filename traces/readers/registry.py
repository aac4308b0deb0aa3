"""The trace formats. To add one: write a module with a `Reader` named READER, and list it here."""

from traces.readers import eplb, exflow, jsonl, npz, parquet
from traces.readers.base import Reader

__all__ = ["READERS"]

READERS: tuple[Reader, ...] = (npz.READER, parquet.READER, jsonl.READER, exflow.READER, eplb.READER)

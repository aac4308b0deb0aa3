"""The names of the arrays in an `.npz`, which tell the formats apart that are archives of arrays."""

from __future__ import annotations

import zipfile

from traces.decoding.archive import MAGIC
from traces.decoding.files import TraceFile

__all__ = ["STATISTICS", "TRANSFORMERS", "is_foreign", "npz_keys"]

STATISTICS = frozenset({"P", "R"})  # of MoETuner, both
TRANSFORMERS = frozenset({"router_logits", "router_indices"})  # either

MAX_ENTRIES = 4096


def npz_keys(file: TraceFile) -> frozenset[str]:
    """Return the names of the arrays; empty if the file is no zip archive that can be read.

    A damaged archive has no names here: the reader that takes archives in general says what is wrong with it.
    """
    if not file.head.startswith(MAGIC):
        return frozenset()
    try:
        with file.open() as stream, zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return frozenset()
    return frozenset(name.removesuffix(".npy") for name in names[:MAX_ENTRIES] if name.endswith(".npy"))


def is_foreign(file: TraceFile) -> bool:
    """Tell whether an archive is one of other readers than that of our own `.npz`."""
    keys = npz_keys(file)
    return "topk_ids" not in keys and (keys >= STATISTICS or not keys.isdisjoint(TRANSFORMERS))
